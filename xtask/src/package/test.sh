# What a package promises, one line each. $1: the package.
. ./enter.sh
. ./promise.sh
has() { inside grep -q "$1" /etc/netfilter-daemon/policy.yaml; }
# A second version, with another policy of its own, which must not take the owner's place.
cp "$1" "$work/first.deb"
dpkg-deb -R "$work/first.deb" "$work/second"
sed -i 's/^Version: .*/&.1/' "$work/second/DEBIAN/control"
echo '# of the second version' >>"$work/second/etc/netfilter-daemon/policy.yaml"
(cd "$work/second" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -b "$work/second" "$work/second.deb" >/dev/null
for version in first second; do inside sh -c "cat >/root/$version.deb" <"$work/$version.deb"; done

traffic

installed=$(date +%s)
promise 'apt installs it' apt install -y /root/first.deb
promise 'nothing is started that nobody has enabled' not state active
promise 'nothing is enabled' not state enabled
promise 'nothing is in force' not in_force
# Only root has the directories of sbin in PATH.
promise 'its policy is right, and anybody finds the program and may read it' \
    inside setpriv --reuid 65534 --clear-groups env PATH=/usr/bin:/bin netfilter-daemon check /etc/netfilter-daemon/policy.yaml
for page in netfilter-daemon netfilter-daemon-run netfilter-daemon-doctor netfilter-daemon-tags-list; do
    promise "there is a manual page $page" inside sh -c "zcat /usr/share/man/man8/$page.8.gz | grep -q '^\.TH'"
done
completes() {
    inside bash -c '. /usr/share/bash-completion/completions/netfilter-daemon
        COMP_WORDS=(netfilter-daemon "$@") COMP_CWORD=$#
        _netfilter__daemon netfilter-daemon "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
        echo "${COMPREPLY[@]}"' bash "$@"
}
promise 'bash completes commands' test "$(completes sugg)" = suggest
promise 'and commands of commands' test "$(completes tags li)" = list
promise 'and their options' test "$(completes tags list --js)" = --json
promise 'the machine is ready, says the doctor' \
    inside netfilter-daemon doctor --policy /etc/netfilter-daemon/policy.yaml
promise 'systemd enables and starts it' inside systemctl enable --now netfilter-daemon
promise 'it runs when that returns' state active
promise 'it audits' sh -c "nsenter -t $init -a journalctl -u netfilter-daemon | grep -q 'auditing on eth0'"
promise 'nothing is stopped' flows 9
denied() { inside netfilter-daemon events | grep -q 'UDP from 192.0.2.2 to 192.0.2.1 port 9'; }
promise 'what would be stopped is told' eventually denied
echo "        $(($(date +%s) - installed)) s from the package to the first event"

cat >"$work/policy" <<END
isolation_mode: allow_only_approved_outbound
outbound_rules:
  - { name: echo, type: ip, destination: { cidr: 192.0.2.1/32, protocol: UDP, port_ranges: "7" } }
END
inside sh -c 'cat >/etc/netfilter-daemon/policy.yaml' <"$work/policy"
promise 'the owner saves a policy, and it is in force' eventually stands 9
promise 'what it allows goes on' flows 7
before=$(come 9)
former=$(process)
promise 'apt upgrades it' apt install -y -o Dpkg::Options::=--force-confold /root/second.deb
promise 'the upgrade restarted the daemon' test "$(process)" -gt "$former"
promise 'it runs' state active
promise 'the owner has the policy that he wrote' has 'name: echo'
promise 'and the other beside it' inside test -e /etc/netfilter-daemon/policy.yaml.dpkg-dist
promise 'the same version again is no trouble' apt install -y --reinstall -o Dpkg::Options::=--force-confold /root/second.deb
promise 'and back to the first' apt install -y --allow-downgrades -o Dpkg::Options::=--force-confold /root/first.deb
promise 'it runs after that' state active
promise 'stopped, it leaves the filter in force' inside systemctl stop netfilter-daemon
sleep 1
promise 'what is stopped was stopped all the time' test "$(come 9)" -eq "$before"
promise 'what is allowed went on' flows 7
promise 'an upgrade starts no daemon that its owner has stopped' \
    apt install -y -o Dpkg::Options::=--force-confold /root/second.deb
promise 'it stays so' not state active
promise 'the filter too' stands 9
promise 'it starts again' inside systemctl start netfilter-daemon
promise 'and filters as before' test "$(come 9)" -eq "$before"
# A busy machine makes gaps, too; one that a restart of the filter made would be a denial.
read came gap <"$work/7"
echo "        widest gap in what is allowed: $gap ms"

promise 'apt removes it' apt remove -y netfilter-daemon
promise 'no daemon is left' not inside sh -c 'grep -l ^netfilter /proc/[0-9]*/comm'
promise 'no filter is left' not in_force
promise 'everything passes' eventually flows 9
promise 'the policy is left' has 'name: echo'
promise 'installed again, it is not started' apt install -y /root/second.deb
promise 'it is not' not state active
promise 'with the policy that was left' has 'name: echo'
promise 'it was enabled, and is again' state enabled
inside systemctl start netfilter-daemon
inside systemctl stop netfilter-daemon
promise 'a filter without a daemon is in force' stands 9
promise 'apt purges it' apt purge -y netfilter-daemon
promise 'that filter is lifted, too' eventually flows 9
promise 'no filter is left after that' not in_force
promise 'nothing of it is left' inside sh -c '! ls -d /etc/netfilter-daemon /var/lib/netfilter-daemon \
    /run/netfilter-daemon /usr/bin/netfilter-daemon /etc/systemd/system/*/netfilter-daemon.service 2>/dev/null'
promise 'nothing failed in this machine' not inside systemctl is-failed netfilter-daemon
kept
