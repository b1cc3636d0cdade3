# Becomes the systemd of a machine of its own, in new namespaces of mounts and processes, where
# nothing of the machine's own is in the way, and nothing of it can be changed.
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --rbind /run/netfilter-daemon /mnt
mount -t tmpfs tmpfs /run
mkdir -m 0700 /run/netfilter-daemon
mount --move /mnt /run/netfilter-daemon
mount -t tmpfs tmpfs /usr/local/sbin
touch /usr/local/sbin/netfilter-daemon
mount --bind "$DAEMON" /usr/local/sbin/netfilter-daemon
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /var/tmp
mount -t tmpfs tmpfs /etc/systemd/system
# The whole tree: the daemon needs its root. This systemd keeps to the part it is in.
mount -t cgroup2 none /sys/fs/cgroup
cp /run/netfilter-daemon/units/* /etc/systemd/system/
exec "$@"
