#!/usr/bin/env bash
# What a runner's machine has besides its base image: tools, Docker, NVIDIA's driver and container toolkit, and, in an image, the agent and
# GitHub's runner. For Ubuntu 22.04 and later and Debian 12 and later, as root; what is there already stays.
#
# It is run where an image is made (images/*.pkr.hcl, images/Containerfile), and by a machine of a plain image as its start-up script:
#     cml runner … --cloud-startup-script="$(base64 -w 0 images/install.sh)"
#
# From the environment, all of it optional:
#   CML_PACKAGES     what else to install by apt-get
#   CML_DOCKER       no: without Docker
#   CML_GPU          yes or no: with NVIDIA's driver; else where lspci or the bus shows a GPU of theirs
#   CML_AGENT        a file or an address: the agent goes into the image; with CML_AGENT_SHA256, without which an address is refused
#   CML_RUNNER       a file or an address: GitHub's runner (a .tar.gz) goes into the image; with CML_RUNNER_SHA256, likewise
#   CML_IMAGE        yes: what is this machine's own is removed at the end, so that an image can be made of it
#   CML_NVIDIA_REPO  a mirror of https://nvidia.github.io/libnvidia-container
set -euo pipefail
umask 022

driver=${CML_NVIDIA_DRIVER:-580-server-open} # the branch that Ubuntu supports on servers, with NVIDIA's open kernel module
nvidia_repo=${CML_NVIDIA_REPO:-https://nvidia.github.io/libnvidia-container}
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a

say() { echo "install: $*"; }
fail() {
	echo "install: error: $*" >&2
	exit 1
}
apt() { apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null; }
add() { apt install -y --no-install-recommends "$@"; }

# fetch SOURCE SHA256 FILE: a file as it is, an address only with its checksum.
fetch() {
	case $1 in
	http://* | https://*)
		[ -n "$2" ] || fail "$1 is downloaded only with its SHA-256"
		curl -fsSL --retry 3 --connect-timeout 10 -o "$3" "$1"
		;;
	*) cp "$1" "$3" ;;
	esac
	if [ -n "$2" ]; then sha256sum --check --quiet - <<<"$2  $3" || fail "$1 is not the file with the SHA-256 $2"; fi
}

# NVIDIA is 10de on the bus.
has_gpu() {
	case ${CML_GPU:-} in
	yes) return 0 ;;
	no) return 1 ;;
	*) grep -qsi 0x10de /sys/bus/pci/devices/*/vendor ;;
	esac
}

install_tools() {
	say "tools"
	# shellcheck disable=SC2086 # a list
	add ca-certificates curl git jq sudo tar unzip xz-utils zstd ${CML_PACKAGES:-}
}

install_docker() {
	if command -v docker >/dev/null; then return; fi
	say "Docker"
	add docker.io
}

install_gpu() {
	if ! command -v nvidia-smi >/dev/null; then
		say "NVIDIA's driver $driver"
		# The module for the running kernel comes built and signed where Canonical has one, else it is built here.
		add "nvidia-headless-no-dkms-$driver" "nvidia-utils-${driver%-open}" "linux-modules-nvidia-$driver-$(uname -r)" ||
			add "nvidia-headless-$driver" "nvidia-utils-${driver%-open}" "linux-headers-$(uname -r)"
	fi
	if command -v docker >/dev/null && ! command -v nvidia-ctk >/dev/null; then
		say "NVIDIA's container toolkit"
		add gnupg
		key=/usr/share/keyrings/nvidia-container-toolkit.gpg
		curl -fsSL --retry 3 "$nvidia_repo/gpgkey" | gpg --dearmor --yes -o "$key"
		echo "deb [signed-by=$key] $nvidia_repo/stable/deb/$(dpkg --print-architecture) /" >/etc/apt/sources.list.d/nvidia-container-toolkit.list
		apt update
		add nvidia-container-toolkit
		nvidia-ctk runtime configure --runtime=docker
		if [ -d /run/systemd/system ]; then systemctl try-restart docker; fi
	fi
}

install_agent() {
	say "the agent"
	mkdir -p /opt/cml/bin
	fetch "$CML_AGENT" "${CML_AGENT_SHA256:-}" /opt/cml/bin/cml-agent.new
	chmod 755 /opt/cml/bin/cml-agent.new
	/opt/cml/bin/cml-agent.new --version
	mv -f /opt/cml/bin/cml-agent.new /opt/cml/bin/cml-agent
}

# Where the agent looks for it, for the user that it runs jobs as.
install_runner() {
	say "GitHub's runner"
	id -u cml >/dev/null 2>&1 || useradd --create-home --shell /bin/bash cml
	if getent group docker >/dev/null; then usermod -aG docker cml; fi
	archive=$(mktemp)
	fetch "$CML_RUNNER" "${CML_RUNNER_SHA256:-}" "$archive"
	rm -rf /opt/cml/runner
	mkdir -p /opt/cml/runner
	tar -xzf "$archive" -C /opt/cml/runner --no-same-owner
	rm -f "$archive"
	/opt/cml/runner/bin/installdependencies.sh >/dev/null
	chown -R cml:cml /opt/cml/runner
}

# An image is no machine: the next one makes its own keys, ids and logs, and runs its own start-up data.
forget_this_machine() {
	say "this machine's own is removed"
	apt clean
	rm -rf /var/lib/apt/lists/* /tmp/* /var/tmp/* /root/.bash_history /etc/ssh/ssh_host_* /var/lib/cml
	if command -v cloud-init >/dev/null; then cloud-init clean --logs --seed; fi
	if [ -e /etc/machine-id ]; then : >/etc/machine-id; fi
	journalctl --rotate --vacuum-time=1s >/dev/null 2>&1 || true
}

[ "$(id -u)" = 0 ] || fail "it must be root"
command -v apt-get >/dev/null || fail "there is no apt-get: this is for Ubuntu and Debian"
apt update
install_tools
if [ "${CML_DOCKER:-}" != no ]; then install_docker; fi
if has_gpu; then install_gpu; fi
if [ -n "${CML_AGENT:-}" ]; then install_agent; fi
if [ -n "${CML_RUNNER:-}" ]; then install_runner; fi
if [ "${CML_IMAGE:-}" = yes ]; then
	forget_this_machine
elif has_gpu && ! modprobe nvidia 2>/dev/null; then
	say "restarting for the driver"
	reboot
fi
say "done"
