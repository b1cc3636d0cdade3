# What packaging/examples promise. $1: the package; $2: the examples. Each has a machine of its own.
package=$1
examples=$2
case ${3-} in
'')
    for example in cloud_init ansible container_host kubernetes; do sh -eu examples.sh "$1" "$2" $example; done
    exit
    ;;
esac
root=root-examples
. ./enter.sh
. ./promise.sh
give() { inside sh -c "cat >$2" <"$1"; }
give "$package" /root/netfilter-daemon.deb
said() { inside journalctl --no-pager -u netfilter-daemon | grep -q "$1"; }

cloud_init() {
    sed 's,https://packages.example.com/netfilter-daemon_amd64.deb,file:///root/netfilter-daemon.deb,' \
        "$examples/cloud-init.yaml" >"$work/user-data"
    give "$examples/cloud-init.yaml" /root/as-written
    promise 'cloud-init knows every line' inside cloud-init schema --config-file /root/as-written
    inside mkdir -p /var/lib/cloud/seed/nocloud
    give "$work/user-data" /var/lib/cloud/seed/nocloud/user-data
    echo 'instance-id: packaged' >"$work/meta-data"
    give "$work/meta-data" /var/lib/cloud/seed/nocloud/meta-data
    printf 'datasource_list: [NoCloud]\nlocale: false\n' >"$work/source"
    give "$work/source" /etc/cloud/cloud.cfg.d/99-source.cfg
    # As the boot does, step by step.
    promise 'it finds the seed' inside cloud-init init --local
    promise 'it begins' inside cloud-init init
    promise 'it configures' inside cloud-init modules --mode=config
    promise 'it ends' inside cloud-init modules --mode=final
    promise 'its scripts did not fail' not inside grep -q 'Failed to run module' /var/log/cloud-init.log
    promise 'the daemon runs' eventually state active
    promise 'with the policy of the user data' inside grep -q azure-ml /etc/netfilter-daemon/policy.yaml
    promise 'and audits' eventually said 'auditing on eth0'
    promise 'it will run after the next boot' state enabled
}

ansible() {
    give "$examples/ansible.yaml" /root/ansible.yaml
    play() {
        inside ansible-playbook --inventory localhost, --connection local \
            --extra-vars package=/root/netfilter-daemon.deb "$@" /root/ansible.yaml
    }
    promise 'its syntax is right' play --syntax-check
    promise 'the playbook runs' play
    promise 'the daemon runs' state active
    promise 'it will run after the next boot' state enabled
    again() { play | tee "$work/again" | grep -q 'changed=0 '; }
    promise 'again, it changes nothing' again
    wrong() { play --extra-vars isolation_mode=nonsense; }
    promise 'a wrong policy is refused' not wrong
    promise 'and does not come into its place' not inside grep -q nonsense /etc/netfilter-daemon/policy.yaml
    promise 'another one comes into force' play --extra-vars isolation_mode=allow_only_approved_outbound
    enforced() { inside netfilter-daemon status | grep -q '^enforcing'; }
    promise 'by itself' eventually enforced
}

container_host() {
    apt install -y /root/netfilter-daemon.deb >/dev/null
    inside ip link add docker0 type bridge
    inside ip address add 172.17.0.1/16 dev docker0
    inside ip link set docker0 up
    unshare --net sleep 600 &
    container=$!
    others="$others $container"
    sleep 1
    ip link add veth1 netns $init type veth peer name eth0 netns $container
    inside ip link set veth1 master docker0 up
    nsenter --target $container --net sh -ec 'ip address add 172.17.0.2/16 dev eth0
        ip link set eth0 up
        ip route add default via 172.17.0.1'
    nsenter --target $init --net sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    far ip route add 172.17.0.0/16 via 192.0.2.2
    for port in 7 9; do
        far python3 traffic.py count $port "$work" &
        others="$others $!"
    done
    nsenter --target $container --net setpriv --pdeathsig KILL python3 traffic.py send 7 9 &
    others="$others $!"
    promise 'before, a container reaches all' eventually flows 9
    give "$examples/container-host.yaml" /etc/netfilter-daemon/policy.yaml
    promise 'the policy is right' inside netfilter-daemon check /etc/netfilter-daemon/policy.yaml
    promise 'the daemon runs' inside systemctl start netfilter-daemon
    promise 'what no rule allows a container is stopped' eventually stands 9
    promise 'what a rule allows it passes' eventually flows 7
    judged() { inside netfilter-daemon status | grep -q 'veth1.*xdp'; }
    promise 'where it enters the host' judged
}

kubernetes() {
    apt install -y /root/netfilter-daemon.deb >/dev/null
    python3 - "$examples/kubernetes.yaml" "$work" <<'END'
import sys
lines = open(sys.argv[1]).read()
policy = lines.split("policy.yaml: |\n")[1].split("---")[0]
open(sys.argv[2] + "/policy", "w").write("\n".join(line[4:] for line in policy.splitlines()) + "\n")
container = lines.split("capabilities:\n")[1].split("add: [")[1].split("]")[0]
open(sys.argv[2] + "/capabilities", "w").write(
    ",".join("+" + name.strip().lower() for name in container.split(",")))
END
    give "$work/policy" /etc/netfilter-daemon/policy.yaml
    capabilities=$(cat "$work/capabilities")
    pod() {
        inside setpriv --no-new-privs --bounding-set=-all,$capabilities --inh-caps=-all \
            netfilter-daemon run --policy /etc/netfilter-daemon/policy.yaml >"$work/pod" 2>&1 &
        others="$others $!"
    }
    starts() { grep -q '^auditing on eth0' "$work/pod"; }
    pod
    promise 'the container starts with its capabilities alone' eventually starts
    healthy() { there python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:9477/healthz")'; }
    promise 'its probe is answered' eventually healthy
    promise 'its command to lift it is there' inside netfilter-daemon status
    ends() { inside sh -c 'kill $(cat /run/netfilter-daemon/*.lock)'; }
    promise 'it ends' ends
    promise 'the filter survives it' in_force
    gone() { ! inside sh -c 'grep -l ^netfilter /proc/[0-9]*/comm'; }
    promise 'it is gone' eventually gone
    pod
    promise 'the next one takes over' eventually starts
    promise 'lifted is lifted' inside netfilter-daemon detach
    promise 'whole' not in_force
}

echo "== $3"
$3
kept
