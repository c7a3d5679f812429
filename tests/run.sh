#!/usr/bin/env bash
# `make test`. Installs what the contract tests need, runs every test, and closes with one line of counts, skips included.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
skips=$(mktemp) log=$(mktemp)
trap 'rm -f "$skips" "$log"' EXIT
export CML_TEST_SKIPS=$skips
failed_steps=0

skip() { echo "$1: $2" >>"$skips"; }
step() { # step NAME COMMAND…: runs it, and remembers that it failed
	local name=$1
	shift
	echo "== $name"
	if "$@"; then return 0; fi
	echo "FAILED: $name"
	failed_steps=$((failed_steps + 1))
	return 1
}

# Third-party servers and published contracts: a machine without Python or node skips them by name, CI may not.
contracts=(ec2 azure gcp kubernetes) checked=()
if command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null; then
	for cloud in "${contracts[@]}"; do
		step "install what the contract of $cloud is checked with" tests/contract/python.sh "$cloud" && checked+=("$cloud")
	done
	[ -x tests/contract/ec2/.venv/bin/moto_server ] && export CML_TEST_PYTHON=$PWD/tests/contract/ec2/.venv/bin/python
else
	for cloud in "${contracts[@]}"; do skip "contract-$cloud" "no Python 3 with venv on this machine"; done
fi
if command -v npm >/dev/null; then
	step "install GitHub's OpenAPI description" tests/contract/github/setup.sh && export CML_TEST_NODE=1
else
	skip contract-github "no node and npm on this machine"
fi
if [ "${CI:-}" = true ] && { [ ${#checked[@]} -eq 0 ] || [ -z "${CML_TEST_NODE:-}" ]; }; then
	echo "FAILED: CI needs Python and node for the contract tests"
	failed_steps=$((failed_steps + 1))
fi

# Machines that boot: an image of Debian's packages, made once and kept outside of this folder.
if [ "$(id -u)" = 0 ] && command -v mmdebstrap systemd-nspawn dnsmasq ip >/dev/null; then
	step "the image of the machine tests" tests/machine/image.sh && CML_TEST_IMAGE=$(tests/machine/image.sh) && export CML_TEST_IMAGE
elif [ "${CI:-}" = true ]; then
	echo "FAILED: CI needs root, mmdebstrap, systemd-container and dnsmasq-base for the machine tests"
	failed_steps=$((failed_steps + 1))
fi

step "build" cargo build --locked --workspace --all-targets
if [ "${CI:-}" = true ] || [ -x target/tools/bin/cargo-deb ]; then
	step "Debian and RPM packages" tests/machine/packages.sh && export CML_TEST_PACKAGES=$PWD/target/test-packages
fi
recorded=$PWD/target/recorded
export CML_SANDBOX_RECORD=$recorded/github CML_SANDBOX_RECORD_EC2=$recorded/ec2 CML_SANDBOX_RECORD_AZURE=$recorded/azure
export CML_SANDBOX_RECORD_GCP=$recorded/gcp CML_SANDBOX_RECORD_KUBERNETES=$recorded/kubernetes
rm -rf "$recorded" && mkdir -p "$recorded"
step "tests" bash -o pipefail -c 'cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$1"' _ "$log"

# What the programs and the sandbox said to each other is held against the vendors' own descriptions.
if [ -n "${CML_TEST_NODE:-}" ]; then
	step "GitHub exchanges against the published OpenAPI description" node tests/contract/github/validate.mjs "$CML_SANDBOX_RECORD"
fi
for cloud in "${checked[@]}"; do
	step "requests to $cloud against its vendor's description" "tests/contract/$cloud/.venv/bin/python" tests/contract/check.py "$cloud" "$recorded/$cloud"
done

# What a forge has no way to play is ignored by name in the list of scenarios.
sed -n 's/^test \(.*\) \.\.\. ignored, \(.*\)$/\1: \2/p' "$log" >>"$skips"
if [ -s "$skips" ]; then
	echo "== skipped"
	sort -u "$skips" | sed 's/^/SKIP /'
fi
sum() { awk -v want="$1" '/^test result:/ { for (i = 1; i < NF; i++) if ($(i + 1) ~ "^" want) n += $i } END { print n + 0 }' "$log"; }
passed=$(sum passed) failed=$(($(sum failed) + failed_steps)) ignored=$(sum ignored) skipped=$(sort -u "$skips" | wc -l)
[ "$ignored" -gt "$skipped" ] && skipped=$ignored # one that gives no reason is counted all the same
echo "tests: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
