#!/usr/bin/env bash
# bake.sh IMAGE DIR AGENT RUNNER: makes DIR/root, what images/install.sh writes onto the root file system IMAGE when an image is made of it, and
# prints the two as the lower directories of an overlay. In a mount namespace of its own; Debian's packages come as everywhere else.
set -euo pipefail
image=$1 dir=$2 agent=$3 runner=$4
here=$(cd "$(dirname "$0")" && pwd)
export image dir agent runner here
mkdir -p "$dir/root" "$dir/work" "$dir/seen"
unshare --mount --propagation private bash -euo pipefail -c '
	mount -t overlay overlay -o "lowerdir=$image,upperdir=$dir/root,workdir=$dir/work" "$dir/seen"
	mount -t proc proc "$dir/seen/proc"
	mount --rbind /dev "$dir/seen/dev"
	mount -t tmpfs tmpfs "$dir/seen/tmp"
	mount -t tmpfs tmpfs "$dir/seen/run"
	mount --bind /etc/resolv.conf "$dir/seen/etc/resolv.conf"
	cp "$agent" "$dir/seen/run/agent"
	cp "$runner" "$dir/seen/run/runner.tar.gz"
	cp "$here/../../images/install.sh" "$dir/seen/run/install.sh"
	env -i PATH="$PATH" CML_IMAGE=yes CML_DOCKER="${CML_DOCKER:-no}" CML_AGENT=/run/agent CML_RUNNER=/run/runner.tar.gz \
		chroot "$dir/seen" bash /run/install.sh
' >&2
echo "$dir/root:$image"
