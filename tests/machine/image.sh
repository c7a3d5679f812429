#!/usr/bin/env bash
# image.sh: prints the path of a root file system for the machine tests, which it builds of Debian's packages the first time (a minute).
# It is a cloud's: systemd, cloud-init, Google's guest programs, sudo, curl, cron, at; and rpm. It needs root and mmdebstrap; kept in ~/.cache/cml, by this script's own checksum.
set -euo pipefail
sum=$(sha256sum "$0" | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cml
image=$cache/machine-$sum
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -d "$image" ]; then
	rm -rf "$cache"/machine-*
	packages=systemd,systemd-sysv,dbus,libpam-systemd,cloud-init,curl,ca-certificates,sudo,iproute2,netbase,procps,cron,at,udev,ifupdown,isc-dhcp-client,google-guest-agent,rpm
	options=(--variant=minbase --include="$packages" --dpkgopt=force-unsafe-io)
	for folder in doc man locale; do options+=(--dpkgopt="path-exclude=/usr/share/$folder/*"); done
	# shellcheck disable=SC2016 # mmdebstrap's own variable
	hooks=(
		# The builder's, which nobody answers there: cloud-init would wait for it.
		'--customize-hook=: >"$1/etc/resolv.conf"'
		# Nobody updates a machine that lives for seconds.
		'--customize-hook=rm -f "$1"/etc/systemd/system/timers.target.wants/*.timer'
		# Google's programs are for its machines only, and there only the one that runs start-up scripts.
		'--customize-hook=rm -f "$1"/etc/systemd/system/*.wants/google-*.service'
		# A container has no firmware of its own, and cloud-init knows that it is in one. This is all that differs from Debian's package.
		'--customize-hook=sed -i "s#^DMI_SYS_PATH = .*#DMI_SYS_PATH = \"/etc/firmware\"#; s/    if is_container():/    if False:/" "$1/usr/lib/python3/dist-packages/cloudinit/dmi.py"'
	)
	rm -rf "$image.part"
	mmdebstrap --quiet "${options[@]}" "${hooks[@]}" bookworm "$image.part" >&2
	mv "$image.part" "$image"
fi
echo "$image"
