#!/usr/bin/env bash
# packages.sh: makes Debian and RPM packages of the programs that the tests have, without what is for debugging, and prints their folder.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
case $(uname -m) in x86_64) arch=x64 ;; aarch64) arch=arm64 ;; *) exit 1 ;; esac
folder=$PWD/target/test-packages
rm -rf "$folder" && mkdir -p "$folder"
for program in cml cml-agent; do strip -o "$folder/$program-$version-linux-$arch" "target/debug/$program"; done
tools/packages "$folder" >&2
echo "$folder"
