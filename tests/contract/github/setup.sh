#!/usr/bin/env bash
# Installs the pinned packages once (389 MB, in a folder that git ignores), and proves that the validator catches what it must.
set -euo pipefail
cd "$(dirname "$0")"
if ! cmp -s package-lock.json node_modules/.installed; then
	npm ci --silent --no-audit --no-fund 2> >(grep -v 'npm warn' >&2)
	cp package-lock.json node_modules/.installed
fi
node validate.mjs --self-test
