#!/bin/bash
# Registers the runner, or removes it.
if [ "$(id -u)" -eq 0 ] && [ -z "$RUNNER_ALLOW_RUNASROOT" ]; then
    echo "Must not run with sudo"
    exit 1
fi
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
source ./env.sh
if [ "$1" = remove ]; then
    ./bin/Runner.Listener "$@"
else
    ./bin/Runner.Listener configure "$@"
fi
