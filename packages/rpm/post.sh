# shellcheck shell=sh
# After an upgrade (of one version, there are two now), each runner of this host finishes its job and is started again as the new program.
if [ "$1" -gt 1 ] && [ -d /run/systemd/system ]; then
	# One that does not run now is started as the new program anyway.
	systemctl reload 'cml-runner-*.service' || :
fi
