#!/bin/sh
# Stands where the real archive has its start script: what starts the runner without it must not need it.
echo 'this is the stand-in: start runner.jar' >&2
exit 1
