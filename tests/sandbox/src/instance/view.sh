# shellcheck shell=sh
# What an instance sees of this machine. Runs in namespaces of its own, as their first process:
# view.sh FLAVOUR DIR SHARED PROGRAMS RUN — what lies in SHARED and PROGRAMS is seen at the same paths; RUN becomes the first process.
umask 022
flavour=$1 dir=$2 shared=$3 programs=$4 run=$5
mount --make-rprivate /
mkdir -p "$dir/view"
# The upper layer may not lie on the file system that it covers.
mount -t tmpfs tmpfs "$dir/view"
root=$dir/view/root
mkdir "$root"

if [ "$flavour" = overlay ]; then
	mkdir "$dir/view/upper" "$dir/view/work"
	mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/view/upper,workdir=$dir/view/work" "$root"
	mount --bind /sys "$root/sys"
	mount -o remount,bind,ro "$root/sys"
	for own in var/lib/cml opt/cml; do
		mkdir -p "$root/$own"
		mount -t tmpfs -o mode=755 tmpfs "$root/$own"
	done
else
	# A user namespace may not lay an overlay over mounts that it inherited.
	for entry in /*; do
		name=${entry#/}
		if [ -L "$entry" ]; then
			ln -s "$(readlink "$entry")" "$root/$name"
		elif [ -d "$entry" ]; then
			mkdir "$root/$name"
			case $name in
			proc | dev | run | tmp | root | home | var | opt) ;;
			*)
				mount --rbind "$entry" "$root/$name"
				mount -o remount,bind,ro "$root/$name" 2>/dev/null || true
				;;
			esac
		fi
	done
	mkdir -p "$root/var/lib" "$root/var/tmp" "$root/var/log"
fi

mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
	: >"$root/dev/$name"
	mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mkdir -m 1777 "$root/dev/shm"
: >"$root/dev/console"
mount --bind "$dir/console" "$root/dev/console"

# Nothing of the people who use this machine, and nothing of its systemd.
for name in run root home; do
	mount -t tmpfs -o mode=755 tmpfs "$root/$name"
done
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
names=$(readlink -f /etc/resolv.conf || true)
case $names in
/run/*)
	mkdir -p "$root${names%/*}"
	cp "$names" "$root$names"
	;;
esac

for seen in "$shared" "$programs"; do
	mkdir -p "$root$seen"
	mount --bind "$seen" "$root$seen"
done
mount -o remount,bind,ro "$root$programs" 2>/dev/null || true
hostname "${dir##*/}"
cd "$root" || exit 1
if [ "$flavour" = overlay ]; then
	exec chroot "$root" /bin/sh -c "$run" init "$dir"
fi
exec chroot "$root" setpriv --inh-caps=-all --ambient-caps=-all /bin/sh -c "$run" init "$dir"
