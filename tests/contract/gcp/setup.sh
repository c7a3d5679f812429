#!/usr/bin/env bash
# Takes Google's published description of Compute Engine from the pinned package (into a folder that git ignores), and proves that the check
# catches what it must.
set -euo pipefail
cd "$(dirname "$0")"
if ! cmp -s requirements.txt .venv/.installed; then
	rm -rf .venv
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	cp requirements.txt .venv/.installed
fi
.venv/bin/python check_model.py --self-test
