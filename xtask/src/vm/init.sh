#!/bin/busybox sh
# The first process: what it is to test is in its arguments (for the test runner) and
# its environment. Through `cat`, programs write as to a file, without colours.
# Last in PATH: its `ip` is not what the lab knows.
/bin/busybox --install -s /busybox
export PATH=/bin:/sbin:/usr/bin:/usr/sbin:/busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
stty -onlcr
for module in /modules/*; do insmod $module; done
/bin/ip link set lo up
uname -sr

seconds() { read up rest </proc/uptime; echo ${up%.*}; }

began=$(seconds)
{ tests --test-threads=$(nproc) "$@"; echo "vmtest: tests exit $?"; } 2>&1 | cat
echo "vmtest: the tests took $(($(seconds) - began)) s"
[ -z "$only_tests" ] || poweroff -f

began=$(seconds)
# Of the channels those that are quick under emulation; no device of the kernel's decides them.
# Nobody has mounted cgroup v2 here.
{ netfilter-daemon lab --only policy,plain,tunnels,packet-bypass,af-xdp; echo "vmtest: lab exit $?"; } 2>&1 | cat
echo "vmtest: the lab took $(($(seconds) - began)) s"

devices 2>&1 | cat

# What these have not: a suspension, in which an address that a local resolver
# lent expires (by a wildcard: exact names the daemon asks for again).
cat >/tmp/policy.yaml <<END
resolvers: [127.0.0.53, 192.0.2.53]
dns: { minimum_ttl: 0, grace: 0 }
outbound_rules:
  - { name: host, type: fqdn, destination: { fqdn: '*.example', protocol: TCP, port_ranges: '443' } }
  - { name: kept, type: fqdn, destination: { fqdn: kept.test, protocol: TCP, port_ranges: '443' } }
END
/bin/ip link add v0 type veth peer name v1
/bin/ip addr add 10.9.0.1/24 dev v0
/bin/ip link set v0 up
/bin/ip link set v1 up
/bin/ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0
/bin/ip route add default via 10.9.0.2
dnsmasq -k -R -h -a 127.0.0.53 -z -A /host.example/198.18.0.7 -A /kept.test/198.18.0.8 -T 8 -u root --pid-file= &
(sleep 900; poweroff -f) &
netfilter-daemon run --policy /tmp/policy.yaml --interface v0 2>&1 | {
    grep -m 1 -e '^enforcing on v0' -e '^error'
    cat >/dev/null &
    clock
    netfilter-daemon explain --policy /tmp/policy.yaml host.example:443 --resolve | grep TTL
    nc -w 2 198.18.0.7 443 </dev/null 2>&1 | sed 's/^/vmtest: awake: /'
    echo +12 >/sys/class/rtc/rtc0/wakealarm
    echo mem >/sys/power/state
    nc -w 2 198.18.0.7 443 </dev/null 2>&1 | sed 's/^/vmtest: later: /'
    running=$(sed -n 's/^now at \([0-9]*\) nsecs$/\1/p' /proc/timer_list)
    read up rest </proc/uptime
    echo "vmtest: slept $((${up%.*} - running / 1000000000))"
    lockdown
    poweroff -f
}
