#!/bin/busybox sh
# Devices that other kernels of the tests do not have: VLAN, bond, bridge, WireGuard.
# Each is made while the daemon runs, and carries a DNS answer and what it allows.
# Says a line per device, and one per way in which another tool interferes.
say() { echo "vmtest: $*"; }
# Not those of the shell's own.
ip() { /bin/ip "$@"; }
tc() { /bin/tc "$@"; }
far() { ip netns exec far "$@"; }
reaches() { nc -w 2 "$1" 443 </dev/null >/dev/null 2>&1 && echo passed || echo denied; }
eventually() { for _ in $(seq 30); do "$@" && return; sleep 0.2; done; }
covered() { netfilter-daemon status | grep -q "^  $1 *filtered"; }

ip netns add far
for n in 0 1 2 3; do
    ip link add v$n type veth peer name w$n netns far
    ip link set v$n up
    far ip link set w$n up
done
far ip link set lo up
far ip route add local 198.18.0.0/16 dev lo
ip addr add 10.4.0.1/24 dev v0
far ip addr add 10.4.0.2/24 dev w0
cat >/tmp/devices.yaml <<END
resolvers: [10.5.0.2, 10.6.0.2, 10.7.0.2, 10.8.0.2]
outbound_rules:
  - { name: names, type: fqdn, destination: { fqdn: '*.test', protocol: TCP, port_ranges: '443' } }
  - { name: tunnel, type: ip, destination: { cidr: 10.4.0.2/32, protocol: UDP, port_ranges: '51820' } }
END
netfilter-daemon run --policy /tmp/devices.yaml 2>&1 | sed 's/^/daemon: /' &
eventually covered v0

link() { # device, its number, its counterpart
    ip addr add 10.$2.0.1/24 dev "$1"
    ip link set "$1" up
    far ip addr add 10.$2.0.2/24 dev "$3"
    far ip link set "$3" up
    ip route add 198.18.$2.0/24 via 10.$2.0.2
}
ip link add link v0 name vlan5 type vlan id 5
far ip link add link w0 name vlan5 type vlan id 5
link vlan5 5 vlan5

for end in 'ip v' 'far_ip w'; do
    set -- $end
    far_ip() { far ip "$@"; }
    $1 link add bond6 type bond mode 802.3ad lacp_rate fast miimon 100
    for n in 1 2; do
        $1 link set $2$n down
        $1 link set $2$n master bond6
        $1 link set $2$n up
    done
done
link bond6 6 bond6

ip link add bridge7 type bridge
ip link set v3 master bridge7
# A bridge with cables only leads inward; a default route makes it a way out.
link bridge7 7 w3
ip route add default via 10.7.0.2

ip link add wg8 type wireguard
far ip link add wg8 type wireguard
wg genkey >/tmp/a; wg genkey >/tmp/b
wg set wg8 listen-port 51820 private-key /tmp/a peer $(wg pubkey </tmp/b) endpoint 10.4.0.2:51820 allowed-ips 0.0.0.0/0
far wg set wg8 listen-port 51820 private-key /tmp/b peer $(wg pubkey </tmp/a) allowed-ips 0.0.0.0/0
link wg8 8 wg8

far dnsmasq -R -h -u root --pid-file= -A /vlan5.test/198.18.5.1 -A /bond6.test/198.18.6.1 \
    -A /bridge7.test/198.18.7.1 -A /wg8.test/198.18.8.1
far nc -ll -p 443 -e /sbin/true &
sleep 3
for device in vlan5 bond6 bridge7 wg8; do
    n=${device#${device%?}}
    eventually covered $device
    before=$(reaches 198.18.$n.1)
    nslookup -type=a $device.test 10.$n.0.2 >/tmp/answer 2>&1 || cat /tmp/answer
    say "$device: before $before, learned $(reaches 198.18.$n.1), other $(reaches 198.18.$n.9)"
done
lacp() { grep 'Partner Mac' /proc/net/bonding/bond6 | grep -qv 00:00:00:00:00:00; }
eventually lacp
lacp && say "bond6: LACP negotiated"

repaired() {
    wget -qO- http://127.0.0.1:9477/metrics |
        grep -q "^netfilter_repairs_total{interface=\"$1\",cause=\"$2\"}"
}
tc qdisc del dev vlan5 clsact
eventually repaired vlan5 detached
repaired vlan5 detached && say "clsact: detached, put right, other $(reaches 198.18.5.9)"
pin=$(find /sys/fs/bpf/netfilter -name 'ingress-*' | head -n 1)
tc filter add dev vlan5 egress pref 1 bpf da object-pinned $pin
eventually repaired vlan5 displaced
repaired vlan5 displaced && say "clsact: displaced, put right, other $(reaches 198.18.5.9)"
sleep 2
say "clsact: $(tc filter show dev vlan5 egress | grep -c netfilter_egres) of ours"
netfilter-daemon status | sed -n '/^interfaces/,/^$/p'
wget -qO- http://127.0.0.1:9477/healthz >/dev/null && say "devices: healthy"
netfilter-daemon detach >/dev/null
for device in vlan5 wg8 bridge7 bond6 bond0 v0 v1 v2 v3; do ip link del $device; done
kill $(pidof dnsmasq) $(pidof nc)
ip netns del far
