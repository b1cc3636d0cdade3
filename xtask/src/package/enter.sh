# For other scripts: starts a machine of $root, and gives `inside`, which runs a command in it, `there`,
# which runs one of this machine in its network namespace, and `far`, at the other end of its
# cable. What was started ends with the script.
began=$(date +%s)
work=$(mktemp -d)
setsid sh -eu boot.sh ${root:-root} >"$work/boot.log" 2>&1 &
boot=$!
others=
# It is empty some time after its processes have ended.
no_group() {
    ! for group in /sys/fs/cgroup/netfilter-package-$boot /sys/fs/cgroup/unified/netfilter-package-$boot; do
        [ ! -d $group ] || find $group -depth -type d -exec rmdir {} \;
        [ ! -d $group ] || echo $group
    done | grep -q .
}
ended() {
    status=$?
    trap - EXIT
    for process in $others $boot; do kill -KILL $process 2>/dev/null || true; done
    wait 2>/dev/null || true
    until_it_is no_group || true
    rm -rf "$work"
    exit $status
}
trap ended EXIT
trap 'exit 130' INT TERM

# At most 30 seconds.
until_it_is() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.1
    done
}
first() { init=$(pgrep -P $boot) && [ -n "$init" ]; }
until_it_is first
inside() {
    nsenter --target $init --all env -i -C / PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}
there() { nsenter --target $init --net setpriv --pdeathsig KILL "$@"; }
is_up() { inside systemctl is-system-running | grep -qE 'running|degraded'; }
until_it_is is_up || until_it_is is_up || {
    cat "$work/boot.log"
    inside systemctl list-jobs || true
    echo 'the machine does not start'
    exit 1
}

unshare --net sleep 600 &
other=$!
others="$others $other"
apart() { [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
until_it_is apart
far() { nsenter --target $other --net setpriv --pdeathsig KILL "$@"; }
ip link add eth0 netns $init type veth peer name far netns $other
there ip address add 192.0.2.2/24 dev eth0
there ip link set eth0 up
there ip route add default via 192.0.2.1
far ip address add 192.0.2.1/24 dev far
far ip link set far up
