#!/usr/bin/env bash
# python.sh CLOUD: installs the pinned packages of that cloud's contract once (in a folder that git ignores), and proves that its check catches
# what it must.
set -euo pipefail
cd "$(dirname "$0")/$1"
if ! cmp -s requirements.txt .venv/.installed; then
	rm -rf .venv
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	cp requirements.txt .venv/.installed
fi
.venv/bin/python ../check.py "$1" --self-test
