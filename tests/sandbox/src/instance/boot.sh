# shellcheck shell=sh
# Boots a machine with its own systemd: boot.sh BASE DIR SHARED GROUP NETWORK DISK — BASE is its disk as the image has it, DIR/root what it writes,
# SHARED is seen at the same path, GROUP names its control groups, NETWORK its network namespace, DISK how many MiB it may write, if that has a limit.
# Ends with nspawn's status: 0 powered off, 133 wants to be booted again.
base=$1 dir=$2 shared=$3 group=$4 network=$5 disk=$6
for hierarchy in systemd unified .; do
	top=/sys/fs/cgroup/$hierarchy
	if [ -w "$top/cgroup.procs" ]; then
		mkdir -p "$top/$group" && echo $$ >"$top/$group/cgroup.procs" || exit 1
	fi
done
mkdir -p "$dir/root" "$dir/work" "$dir/seen"
export base dir shared disk
# With the first process of that process namespace everything in it ends, nspawn's own children too.
exec nsenter --net="$network" unshare --pid --fork --kill-child=KILL --mount --propagation private sh -c '
	mount -t proc proc /proc || exit 1
	# Not the systemd of whoever runs the tests.
	mount -t tmpfs tmpfs /run/systemd || exit 1
	layer=$dir
	if [ -n "$disk" ]; then
		layer=$dir/disk
		mkdir -p "$layer"
		mount -t tmpfs -o "size=${disk}m" tmpfs "$layer" || exit 1
		mkdir "$layer/work"
		cp -a "$dir/root" "$layer/root" || exit 1
	fi
	mount -t overlay overlay -o "lowerdir=$base,upperdir=$layer/root,workdir=$layer/work" "$dir/seen" || exit 1
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --directory="$dir/seen" --machine="${dir##*/}" --boot --keep-unit --register=no \
		--capability=CAP_NET_ADMIN,CAP_BPF --system-call-filter=bpf --resolv-conf=off --timezone=off --link-journal=no \
		--console=read-only --bind="$shared"
	# Not by exec: the first process of a namespace is killed by no signal of its own.
	exit $?
'
