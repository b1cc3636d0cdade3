#!/bin/busybox sh
# The clock is set an hour ahead and two back, beside a daemon with a local resolver: what
# it learned is forgotten when its time is over, neither sooner nor later; a policy that
# waits to be confirmed is, and gives way, in its time; exact names are asked for again; and
# what is shown has plausible times.
say() { echo "vmtest: clock: $*"; }
hour() { date -s @$(($(date +%s) $1 3600)) >/dev/null; }
passes() { nc -w 1 "$1" 443 </dev/null 2>&1 | grep -q 'timed out' && echo passed || echo denied; }
since() {
    netfilter-daemon status | sed -n 's/^ *since .*(\(.*\) ago)$/\1/p' | grep -qv '[hd]' && echo lately
}
denied() {
    then=$(netfilter-daemon events --json | tail -n 1 | sed 's/.*"time": *\([0-9]*\).*/\1/')
    ago=$(($(date +%s) - then))
    [ $ago -ge 0 ] && [ $ago -lt 60 ] && echo lately || echo "$ago s ago"
}

netfilter-daemon explain --policy /tmp/policy.yaml host.example:443 --resolve >/dev/null
hour +
say "ahead: $(passes 198.18.0.7)"
hour -
hour -
say "behind: $(passes 198.18.0.7)"
sleep 8
say "later: $(passes 198.18.0.7)"
say "asked for again: $(passes 198.18.0.8)"
say "denied $(denied)"
say "enforcing since $(since)"
hour +
hour +
say "ahead: enforcing since $(since)"
hour -

for step in + -; do
    echo "# $step" >>/tmp/policy.yaml
    netfilter-daemon reload --confirm 20s >/dev/null
    hour $step
    netfilter-daemon confirm >/dev/null && say "$step: confirmed in time"
    echo "# again" >>/tmp/policy.yaml
    netfilter-daemon reload --confirm 2s >/dev/null
    hour $step
    sleep 5
    netfilter-daemon confirm 2>/dev/null || say "$step: too late to confirm"
done
