#!/usr/bin/env bash
# old.sh PROGRAM…: whether programs run on an old Debian (glibc 2.31, of the age of Ubuntu 20.04). Needs root and mmdebstrap; a minute.
set -euo pipefail
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mmdebstrap --quiet --variant=essential bullseye "$root" >&2
for program; do
	cp "$program" "$root/program"
	printf '%s: ' "$program"
	chroot "$root" /program --version
done
