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
if command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null; then
	step "install the EC2 contract (moto, botocore)" tests/contract/ec2/setup.sh && export CML_TEST_PYTHON=$PWD/tests/contract/ec2/.venv/bin/python
	step "install Kubernetes' schemas" tests/contract/kubernetes/setup.sh && kubernetes_python=$PWD/tests/contract/kubernetes/.venv/bin/python
	step "install the types of Azure's APIs" tests/contract/azure/setup.sh && azure_python=$PWD/tests/contract/azure/.venv/bin/python
	step "install Google's description of Compute Engine" tests/contract/gcp/setup.sh && gcp_python=$PWD/tests/contract/gcp/.venv/bin/python
else
	skip contract-azure "no Python 3 with venv on this machine"
	skip contract-gcp "no Python 3 with venv on this machine"
	skip contract-ec2 "no Python 3 with venv on this machine"
	skip contract-kubernetes "no Python 3 with venv on this machine"
fi
if command -v npm >/dev/null; then
	step "install GitHub's OpenAPI description" tests/contract/github/setup.sh && export CML_TEST_NODE=1
else
	skip contract-github "no node and npm on this machine"
fi
if [ "${CI:-}" = true ] && { [ -z "${CML_TEST_PYTHON:-}" ] || [ -z "${CML_TEST_NODE:-}" ]; }; then
	echo "FAILED: CI needs Python and node for the contract tests"
	failed_steps=$((failed_steps + 1))
fi

step "build" cargo build --locked --workspace --all-targets
export CML_SANDBOX_RECORD=$PWD/target/recorded/github.jsonl CML_SANDBOX_RECORD_EC2=$PWD/target/recorded/ec2.forms
export CML_SANDBOX_RECORD_KUBERNETES=$PWD/target/recorded/kubernetes.jsonl
export CML_SANDBOX_RECORD_AZURE=$PWD/target/recorded/azure.jsonl
export CML_SANDBOX_RECORD_GCP=$PWD/target/recorded/gcp.jsonl
rm -rf target/recorded && mkdir -p target/recorded
step "tests" bash -o pipefail -c 'cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$1"' _ "$log"

# What the programs and the sandbox said to each other is held against the vendors' own descriptions.
if [ -n "${CML_TEST_NODE:-}" ]; then
	step "GitHub exchanges against the published OpenAPI description" node tests/contract/github/validate.mjs "$CML_SANDBOX_RECORD"
fi
if [ -n "${CML_TEST_PYTHON:-}" ]; then
	step "EC2 requests against botocore's model" "$CML_TEST_PYTHON" tests/contract/ec2/check_model.py "$CML_SANDBOX_RECORD_EC2"
fi
if [ -n "${azure_python:-}" ]; then
	step "Azure requests against Microsoft's published types" "$azure_python" tests/contract/azure/check_types.py "$CML_SANDBOX_RECORD_AZURE"
fi

if [ -n "${kubernetes_python:-}" ]; then
	step "Kubernetes objects against the published schemas" "$kubernetes_python" tests/contract/kubernetes/check_schema.py "$CML_SANDBOX_RECORD_KUBERNETES"
fi

if [ -n "${gcp_python:-}" ]; then
	step "Compute Engine requests against Google's description" "$gcp_python" tests/contract/gcp/check_model.py "$CML_SANDBOX_RECORD_GCP"
fi

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
