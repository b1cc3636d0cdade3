# $1: a kernel that was unpacked; $2: the daemon; $3: the tests.
PATH=$PATH:/usr/sbin:/sbin
target=$(pwd | sed 's,/vm$,,')
rm -rf root && mkdir root && cd root
mkdir bin busybox dev etc modules proc run sbin sys tmp
touch etc/hosts etc/resolv.conf etc/nsswitch.conf
echo root:x:0:0::/:/bin/sh >etc/passwd
echo root:x:0: >etc/group
cp ../init.sh init && chmod +x init
# A module's file has the names of those that it needs; the number is the order. Debian
# compresses them since 6.5, and busybox does not uncompress them all.
module() {
    [ -z "$(find modules -name "*-$1.ko")" ] || return 0
    file=$(find "$kernel"/lib/modules -name "$1.ko*" -o -name "$(echo $1 | tr _ -).ko*" | head -n 1)
    [ -n "$file" ] || return 0
    case $file in
    *.xz) xz -dc $file ;;
    *) cat $file ;;
    esac >module-$1
    for needed in $(tr '\0' '\n' <module-$1 | sed -n 's/^depends=//p' | tr , ' '); do
        module $needed
    done
    mv module-$1 modules/$((100 + $(ls modules | wc -l)))-$1.ko
}
kernel=$1
for name in veth tun sch_ingress cls_bpf 8021q bonding bridge wireguard; do module $name; done
cp ../tools/usr/bin/wg ../devices ../clock ../lockdown bin
chmod +x bin/devices bin/clock bin/lockdown

# Where it looks for them: programs at their own places, and beside the tests.
add() {
    cp --parents -L "$@" .
    elf="$elf $*"
}
elf=bin/wg
cp $(command -v busybox) bin
ln -s busybox bin/sh
for program in curl dig dnsmasq ifconfig ip kresd python3 tc unbound; do
    add $(command -v $program)
done
# busybox's shell has some of its own, which a path passes by.
for program in ip tc; do ln -s $(command -v $program) bin/$program; done
strip --strip-debug -o bin/tests "$3"
mkdir -p ".$target/debug"
strip --strip-debug -o ".$target/debug/netfilter-daemon" "$2"
ln -s "$target/debug/netfilter-daemon" bin/netfilter-daemon
elf="$elf bin/tests .$target/debug/netfilter-daemon"
for tree in /usr/lib/python3* /usr/lib/*/knot-resolver /usr/share/dns; do
    [ ! -d $tree ] || cp -a --parents $tree .
done
rm -rf usr/lib/python3/dist-packages usr/lib/python3*/test usr/lib/python3*/__pycache__
elf="$elf $(find usr/lib/python3* usr/lib/*/knot-resolver -name '*.so' | tr '\n' ' ')"

# What a program is linked with. Two of one name can lie in two places.
libraries() {
    ldd "$@" 2>/dev/null | grep -o '[[:space:]]/[^ ]*' | sort -u
}
cp -L --parents $(libraries $elf) .
if [ -d "$target/servers" ]; then
    cp -a --parents "$target/servers" .
    beside=$(echo "$target"/servers/usr/lib/*-linux-gnu)
    export LD_LIBRARY_PATH=$beside:$beside/systemd
    cp -L --parents $(libraries $(find "$target/servers" -type f -perm -u+x -path '*bin/*') \
        "$target/servers/lib/systemd/systemd-resolved") .
    unset LD_LIBRARY_PATH
fi
find . | cpio -o -H newc --quiet -R 0:0 >../initrd.cpio
cp "$1"/boot/vmlinuz-* ../vmlinuz
