# shellcheck shell=sh
# The first process of an instance: init.sh DIR. Starts the user data, adopts and reaps what is orphaned, and ends when its power cord,
# standard input, is pulled: by the sandbox, or by the sandbox's own death.
dir=$1
cd /
exec 3<&0 </dev/null
trap 'exit 0' TERM
{
	read -r _ <&3
	kill -TERM $$
} &
# What a test does to the machines of its world before their user data runs.
before=${dir%/*/*}/before-user-data
# shellcheck source=/dev/null
if [ -e "$before" ]; then . "$before"; fi
if [ -x "$dir/shims/dockerd" ]; then
	"$dir/shims/dockerd" >>"$dir/console" 2>&1 3<&- &
	until [ -S "$dir/docker.sock" ]; do sleep 0.05; done
fi
"$dir/user-data" >>"$dir/console" 2>&1 3<&- &
wait
