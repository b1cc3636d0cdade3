# For other scripts: promises, each a line of the output; the first that is broken ends the script.
passed=0
promise() {
    words=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $words"
    else
        echo "FAILED  $words: $*"
        cat "$work/said"
        inside journalctl --no-pager -n 30 -u netfilter-daemon || true
        echo "test result: FAILED. $passed passed; 1 failed; 0 ignored"
        exit 1
    fi
}
not() { ! "$@"; }
eventually() { until_it_is "$@" || "$@"; }
apt() { inside apt-get -o Dpkg::Use-Pty=0 "$@"; }
state() { inside systemctl "is-$1" netfilter-daemon; }
process() { inside systemctl show -P MainPID netfilter-daemon; }
in_force() { [ -n "$(inside ls /sys/fs/bpf/netfilter/links 2>/dev/null)" ]; }
come() { read came gap <"$work/$1" && echo $came; }
# Within a second, of two hundred.
flows() { before=$(come $1) && sleep 1 && [ $(come $1) -gt $((before + 50)) ]; }
stands() { before=$(come $1) && sleep 1 && [ $(come $1) -eq $before ]; }

# Datagrams to ports 7 and 9 of the far end, and how many come there.
traffic() {
    for port in 7 9; do
        far python3 traffic.py count $port "$work" &
        others="$others $!"
    done
    there python3 traffic.py send 7 9 &
    others="$others $!"
    until_it_is test -e "$work/7" -a -e "$work/9"
}
kept() {
    echo "test result: ok. $passed passed; 0 failed; 0 ignored; after $(($(date +%s) - began)) s"
}
