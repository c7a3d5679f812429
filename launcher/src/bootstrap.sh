#!/bin/sh
# Start-up data of `cml runner`: makes this machine a CI runner, and makes sure that it goes away again.
# POSIX sh (dash, busybox); runs once, as root. Values are single-quoted by launcher/src/bootstrap.rs.
set +x
umask 077

version=@@version@@
urls=@@urls@@
sha256=@@sha256@@
budget=@@budget@@
deadline=@@deadline@@
lifetime=@@lifetime@@
login=@@login@@
public_key=@@public_key@@
# Not empty in a pod: there this is the first process, and with it everything ends.
pod=@@pod@@
# How many seconds the console stays readable, where the timer below deletes the machine and the console with it.
linger=@@linger@@

# The proxy of this machine's network, if it has one. Its credentials are in nobody's arguments.
@@network@@

PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export PATH
root=${CML_ROOT:-}
console=${CML_CONSOLE:-/dev/console}
state=$root/var/lib/cml
agent=$root/opt/cml/bin/cml-agent
# Whom the downloads trust: a file, where certificates were given.
trusted=
began=$(date +%s)

has() {
	command -v "$1" >/dev/null 2>&1
}

# A private root is a rehearsal: the systemd that may run there is somebody else's.
has_systemd() {
	[ -z "$root" ] && [ -d /run/systemd/system ] && has systemctl
}

# phase NAME begin|ok|fail [DETAIL]: one machine-readable line on the console.
phase() {
	detail=$(printf %s "${3:-}" | tr '\r\n' '  ')
	line="cml-phase name=$1 state=$2 after=$(($(date +%s) - began))${detail:+ detail=$detail}"
	{ printf '%s\n' "$line" >>"$console"; } 2>/dev/null || printf '%s\n' "$line" >&2
}

# The first that works, and where none does, again and again; on a cloud that was asked for it, powering off is termination.
power_off() {
	if [ -n "$pod" ]; then return; fi
	until systemctl poweroff 2>/dev/null || poweroff 2>/dev/null || shutdown -h now; do sleep 60; done
}

# die PHASE WHY
die() {
	phase "$1" fail "$2"
	if [ -n "$linger" ] && sh "$state/power-off-timer" "$linger"; then exit 1; fi
	power_off
	exit 1
}

# timer NAME SECONDS [MARKER]: powers off after that time, unless the agent has left the marker by then.
timer() {
	if has_systemd && timer_unit "$1" "$2" "${3:-}"; then return 0; fi
	detached=
	if has setsid; then detached=setsid; fi
	# shellcheck disable=SC2086 # one word or none
	$detached sh "$state/power-off-timer" "$2" "${3:-}" </dev/null >/dev/null 2>&1 &
}

# The same by systemd; a machine that is restarted has the time once more.
timer_unit() {
	units=/etc/systemd/system
	printf '[Service]\nType=oneshot\nExecStart=/bin/sh %s/power-off-timer 0 %s\n' "$state" "$3" >"$units/$1.service" &&
		printf '[Timer]\nOnActiveSec=%ss\nAccuracySec=1s\n[Install]\nWantedBy=timers.target\n' "$2" >"$units/$1.timer" &&
		systemctl daemon-reload && systemctl --quiet enable --now "$1.timer"
}

# First of all: a machine whose runner is not online in time goes away, whatever becomes of the rest; and so does one that has lived for
# too long, whatever becomes of the agent.
arm() {
	left=$((deadline - $(date +%s)))
	# This machine's clock may be wrong.
	if [ "$left" -le 0 ] || [ "$left" -gt "$budget" ]; then left=$budget; fi
	mkdir -p "$state" && chmod 700 "$state" && rm -f "$state/online" || return 1
	# A cluster may take hours to place a pod, whose deadline is the Job's own.
	if [ -n "$pod" ]; then
		if [ "$(date +%s)" -ge "$deadline" ]; then die boot "it was started when its launcher had given it up"; fi
		return
	fi
	cat >"$state/power-off-timer" <<'TIMER' || return 1
#!/bin/sh
# power-off-timer SECONDS MARKER: powers off after that time unless the file MARKER, if it is not empty, is beside it by then.
state=${0%/*}
left=$1
marker=$2
is_over() {
	[ ! -d "$state" ] || { [ -n "$marker" ] && [ -e "$state/$marker" ]; }
}
while [ "$left" -gt 0 ]; do
	if is_over; then exit 0; fi
	step=5
	if [ "$left" -lt "$step" ]; then step=$left; fi
	sleep "$step"
	left=$((left - step))
done
if is_over; then exit 0; fi
@@farewell@@
until systemctl poweroff 2>/dev/null || poweroff 2>/dev/null || shutdown -h now; do sleep 60; done
TIMER
	timer cml-boot-deadline "$left" online
	if [ -n "$lifetime" ]; then timer cml-lifetime "$lifetime"; fi
}

# The spec holds the runner's credential: whole or not at all, and for root only.
write_spec() {
	printf %s @@spec@@ >"$state/spec.json.new" && chmod 600 "$state/spec.json.new" && mv -f "$state/spec.json.new" "$state/spec.json" &&
		printf %s @@certificates@@ >"$state/ca-certificates.pem"
}

# The certificates that were given, and the image's own: where each kind of system, and its openssl, keeps them.
trust() {
	if [ ! -s "$state/ca-certificates.pem" ]; then return; fi
	trusted=$state/trusted.pem
	own=/dev/null
	for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
		if [ -s "$file" ]; then
			own=$file
			break
		fi
	done
	cat "$state/ca-certificates.pem" "$own" >"$trusted"
}

# For debugging: the public half of `--cloud-ssh-private` goes to the image's own user, else to the first ordinary one, else to root.
admit() {
	user=root home=/root
	while IFS=: read -r name _ uid _ _ dir _; do
		if [ "$name" = "$login" ]; then
			user=$name home=$dir
			break
		elif [ "$uid" = 1000 ]; then
			user=$name home=$dir
		fi
	done <"$root/etc/passwd"
	ssh=$root$home/.ssh
	mkdir -p "$ssh" && printf '\n%s\n' "$public_key" >>"$ssh/authorized_keys" && chmod 700 "$ssh" && chmod 600 "$ssh/authorized_keys" &&
		chown "$user:" "$ssh" "$ssh/authorized_keys"
}

# download URL FILE
download() {
	if has curl; then
		curl -fsSL ${trusted:+--cacert "$trusted"} --connect-timeout 10 --max-time 120 -o "$2" "$1"
	elif has wget; then
		# That of busybox knows no certificates, and asks for none.
		if ! wget --help 2>&1 | grep -q -e --ca-certificate; then trusted=; fi
		wget -q ${trusted:+"--ca-certificate=$trusted"} -T 30 -O "$2" "$1"
	else
		${trusted:+env "SSL_CERT_FILE=$trusted"} python3 -c 'import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=30) as answer, open(sys.argv[2], "wb") as file:
    shutil.copyfileobj(answer, file)' "$1" "$2"
	fi
}

# Images of containers are bare; whoever has none of the programs may have a package manager.
get_curl() {
	phase agent begin "installing curl"
	if has apt-get; then
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends curl ca-certificates
	elif has apk; then
		apk add --quiet curl
	elif has microdnf; then
		microdnf install -y curl
	elif has dnf; then
		dnf install -y curl
	else
		false
	fi >/dev/null
}

# Takes the agent that the image has, if it is of this version, else downloads it: from each address in turn, some times.
get_agent() {
	if [ "$("$agent" --version 2>/dev/null)" = "cml-agent $version" ]; then
		phase agent ok "the image's own"
		return 0
	fi
	has curl || has wget || has python3 || get_curl ||
		die agent "this image has none of curl, wget and python3, and no package manager that can install one"
	trust || die agent "cannot write to $state"
	mkdir -p "${agent%/*}" && chmod 755 "$root/opt/cml" "${agent%/*}" || die agent "cannot write to ${agent%/*}"
	why="no address to download it from"
	left=$urls
	for pause in 1 2 4 8 0; do
		again=
		for url in $left; do
			shown=${url%%\?*}
			if ! said=$(download "$url" "$agent.new" 2>&1); then
				why="downloading $shown: $said"
				again="$again $url"
				continue
			fi
			found=$(sha256sum <"$agent.new")
			found=${found%% *}
			if [ "$found" = "$sha256" ]; then
				chmod 755 "$agent.new" && mv -f "$agent.new" "$agent" || die agent "cannot write to ${agent%/*}"
				phase agent ok "from $shown"
				return 0
			fi
			# What is wrong now is wrong the next time too.
			why="$shown has the SHA-256 $found, not $sha256"
		done
		rm -f "$agent.new"
		left=$again
		if [ -z "$left" ]; then break; fi
		sleep "$pause"
	done
	die agent "$why"
}

# The copies of this very script that cloud-init keeps: it holds the credential.
forget() {
	if [ -n "$root" ]; then return; fi
	rm -rf /var/lib/cloud/instances/*/user-data.txt* /var/lib/cloud/instances/*/cloud-config.txt /var/lib/cloud/instances/*/scripts \
		/var/lib/cloud/instances/*/obj.pkl /run/cloud-init/instance-data-sensitive.json /run/cloud-init/combined-cloud-config.json
}

# The agent unregisters and powers off by itself; without systemd, this script is what is left if it cannot.
start_agent() {
	if has_systemd; then
		printf %s @@unit@@ >/etc/systemd/system/cml-agent.service && chmod 644 /etc/systemd/system/cml-agent.service &&
			systemctl daemon-reload && systemctl --quiet enable cml-agent.service && systemctl start --no-block cml-agent.service ||
			die agent "systemd cannot start cml-agent.service"
		forget
		return
	fi
	forget
	# Programs that the agent starts are not secret.
	umask 022
	if [ -n "$pod" ]; then exec "$agent" run --spec "$state/spec.json"; fi
	"$agent" run --spec "$state/spec.json"
	code=$?
	# One that was killed is started once more, only to take its leave, as the unit does.
	if [ "$code" -gt 128 ]; then
		phase agent begin "it was killed by signal $((code - 128))"
		"$agent" run --spec "$state/spec.json"
		code=$?
	fi
	if [ "$code" -ne 0 ]; then phase agent fail "it ended with status $code"; fi
	power_off
}

# The first process of a pod hears no signal that it does not ask for.
if [ -n "$pod" ]; then trap 'exit 143' TERM; fi
phase boot begin
arm || die boot "cannot write to $state"
write_spec || die boot "cannot write the spec"
if [ -n "$public_key" ]; then admit || phase boot begin "cannot write the SSH key"; fi
phase boot ok
phase agent begin
# An address may hold a `?`.
set -f
get_agent
set +f
start_agent
