#!/usr/bin/env bash
# `make lint`: what a reviewer's machine would say.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
# That they compile, and are all of them, the packages' own tests see; only what is pinned is not theirs.
cargo update --workspace --locked --quiet --manifest-path fuzz/Cargo.toml
cargo clippy --locked --workspace --all-targets -- -D warnings
long=$(git ls-files '*.rs' | xargs wc -l | awk '$1 > 400 && $2 != "total" { print "  " $0 }')
[ -z "$long" ] || { echo "over 400 lines: split by noun"; echo "$long"; exit 1; }
if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo "SKIP cargo deny: cargo install cargo-deny --locked"; fi
if command -v packer >/dev/null; then
	packer validate -var version=0 -var runner=https://example.com/runner.tar.gz -var runner_sha256=0 images
else echo "SKIP packer validate: not installed"; fi
if command -v actionlint >/dev/null; then actionlint; else echo "SKIP actionlint: not installed"; fi
if command -v shellcheck >/dev/null; then git ls-files '*.sh' 'tools/*' '.ci/*' 'packages/deb/*' | xargs shellcheck; else echo "SKIP shellcheck: not installed"; fi
