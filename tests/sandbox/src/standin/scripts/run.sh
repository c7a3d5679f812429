#!/bin/bash
# Keeps the listener alive. As in the real one, SIGTERM to this process alone leaves the listener behind, unless RUNNER_MANUALLY_TRAP_SIG
# is set; arguments with spaces break; and the exit status says nothing.
dir="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
    set -m
    trap 'kill -INT -$helper' INT TERM
fi
while :; do
    cp -f "$dir/run-helper.sh.template" "$dir/run-helper.sh"
    if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
        # shellcheck disable=SC2048,SC2086 # as the real one does
        "$dir/run-helper.sh" $* &
        helper=$!
        wait "$helper"
    else
        # shellcheck disable=SC2048,SC2086
        "$dir/run-helper.sh" $*
    fi
    status=$?
    if [ $status -eq 2 ]; then
        echo "Restarting runner..."
        continue
    fi
    echo "Exiting runner..."
    if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
        trap - INT TERM
        wait "$helper"
        exit $status
    fi
    [ $status -eq 7 ] && exit 7
    exit 0
done
