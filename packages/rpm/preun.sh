# shellcheck shell=sh
# Without the programs (no version is left) there are no runners: each takes its leave, and nothing of it stays.
if [ "$1" -eq 0 ]; then
	for settings in /etc/cml/*/; do
		[ -d "$settings" ] || continue
		name=${settings%/}
		cml-agent uninstall --name="${name##*/}" || echo "the runner ${name##*/} is not removed: look at $settings" >&2
	done
fi
