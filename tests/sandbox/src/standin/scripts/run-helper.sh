#!/bin/bash
# Runs the listener once and says what to do next: 2 means to run it again.
if [ "$(id -u)" -eq 0 ] && [ -z "$RUNNER_ALLOW_RUNASROOT" ]; then
    echo "Must not run interactively with sudo"
    exit 1
fi
dir="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
flag=update.finished
# shellcheck disable=SC2048,SC2086 # as the real one does
"$dir/bin/Runner.Listener" run $*
status=$?
case $status in
0)
    echo "Runner listener exit with 0 return code, stop the service, no retry needed."
    exit 0
    ;;
1)
    echo "Runner listener exit with terminated error, stop the service, no retry needed."
    exit 0
    ;;
2)
    echo "Runner listener exit with retryable error, re-launch runner in 5 seconds."
    "$dir/safe_sleep.sh" 5
    exit 2
    ;;
3 | 4)
    echo "Runner listener exit because of updating, re-launch runner after successful update"
    for _ in $(seq 31); do
        [ -f $flag ] && break
        "$dir/safe_sleep.sh" 1
    done
    rm -f $flag
    exit 2
    ;;
5)
    echo "Runner listener exit with Session Conflict error, stop the service, no retry needed."
    exit 0
    ;;
7)
    if [ "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" = 1 ]; then
        echo "Runner listener exit with deprecated version exit code: 7."
        exit 7
    fi
    ;;&
*)
    echo "Exiting with unknown error code: $status"
    exit 0
    ;;
esac
