# A machine with systemd as its first process, made of the directory $1, which it does not change.
# Its eth0 leads to a namespace of its own, the other
# end of which has the name `far`. It ends with this script.
root=$(pwd)/$1
group=/sys/fs/cgroup/unified
[ -e $group ] || group=/sys/fs/cgroup
group=$group/netfilter-package-$$
mkdir $group
echo $$ >$group/cgroup.procs
exec unshare --mount --uts --ipc --net --cgroup --pid --fork --kill-child=KILL sh -eu -c '
mount --make-rprivate /
mount -t tmpfs changes /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# As systemd does outside of containers.
mount -t bpf -o mode=700 bpf sys/fs/bpf
for place in run tmp; do mount -t tmpfs tmpfs $place; done
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
rm -f etc/machine-id && touch etc/machine-id
hostname packaged
pivot_root . mnt
cd /
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
' sh "$root"
