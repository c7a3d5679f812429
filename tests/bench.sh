#!/usr/bin/env bash
# `make bench`: speed and size of the programs as users get them, each figure beside its goal or beside the tool that it is measured
# against in the same run. Prints; never fails because a machine is slow.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "building what users get (the launcher with its AWS SDK takes minutes the first time) …" >&2
cargo build --locked --quiet --profile agent -p agent
cargo build --locked --quiet --release -p launcher
cargo build --locked --quiet -p sandbox -p e2e
if [ "$(id -u)" = 0 ] && command -v mmdebstrap systemd-nspawn dnsmasq >/dev/null; then
	CML_TEST_IMAGE=$(tests/machine/image.sh)
	export CML_TEST_IMAGE
fi
exec target/debug/bench target/release/cml target/agent/cml-agent
