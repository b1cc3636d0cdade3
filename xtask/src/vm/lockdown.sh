#!/bin/busybox sh
# The kernel is locked down, as it is where it was booted securely: the daemon that runs
# goes on, and another one starts. The last thing: only a boot lifts it.
say() { echo "vmtest: lockdown: $*"; }
passes() { nc -w 1 "$1" 443 </dev/null 2>&1 | grep -q 'timed out' && echo passed || echo denied; }
eventually() { for _ in $(seq 600); do "$@" && return; sleep 0.2; done; }
is_over() { ! pidof netfilter-daemon >/dev/null; }
learned() {
    netfilter-daemon explain --policy /tmp/policy.yaml host.example:443 --resolve >/dev/null
    passes 198.18.0.7
}

mount -t securityfs securityfs /sys/kernel/security
for level in integrity confidentiality; do
    echo $level >/sys/kernel/security/lockdown
    grep -q "\[$level\]" /sys/kernel/security/lockdown || say "$level: the kernel has none"
    netfilter-daemon reload >/dev/null && say "$level: reloaded, learned $(learned), other $(passes 198.18.0.9)"
done
netfilter-daemon detach >/dev/null
eventually is_over
netfilter-daemon run --policy /tmp/policy.yaml --interface v0 2>/tmp/log &
eventually grep -q -e '^enforcing on v0' -e '^error' /tmp/log
say "$(grep -e '^enforcing' -e '^error' /tmp/log), learned $(learned), other $(passes 198.18.0.9)"
