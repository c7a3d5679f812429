# shellcheck shell=sh
# The power cord of an instance without namespaces: cord.sh DIR. When standard input ends, so does every process that names DIR in its
# environment; this one does not.
dir=$1
read -r _
for process in /proc/[0-9]*; do
	if grep -qsF "$dir/" "$process/environ"; then kill -KILL "${process#/proc/}"; fi
done
