#!/bin/bash
# Layer 902, base-template-docker: Docker Engine, Compose and NVIDIA's container toolkit.
#
# Proved by a real container, since Docker inside LXC starts more often than it works.
# For Ubuntu 24.04 and Debian 13, in a container with nesting. Safe to run again.
set -euo pipefail
# shellcheck source=/dev/null
. /usr/local/lib/phoenix/layer.sh
# shellcheck source=/dev/null
. /etc/os-release

log "Adding Docker's repository for ${ID} ${VERSION_CODENAME}"
docker_repository="https://download.docker.com/linux/${ID}"
trust_key "${docker_repository}/gpg" 9DC858229FC7DD38854AE2D88D81803C0EBFCD88 /etc/apt/keyrings/docker.asc
add_repository docker /etc/apt/keyrings/docker.asc "$docker_repository" "$VERSION_CODENAME" stable

log "Adding the repository of NVIDIA's container toolkit"
toolkit_repository=https://nvidia.github.io/libnvidia-container
trust_key "${toolkit_repository}/gpgkey" C95B321B61E88C1809C4F759DDCAE044F796ECB0 /etc/apt/keyrings/nvidia-container-toolkit.asc
add_repository nvidia-container-toolkit /etc/apt/keyrings/nvidia-container-toolkit.asc "${toolkit_repository}/stable/deb/amd64" /
refresh_packages

# Before the engine's first start, so that no container's log can fill the disk.
if [[ ! -e /etc/docker/daemon.json ]]; then
    install -d -m 0755 /etc/docker
    # Whole or not at all: Docker does not start with half of it.
    cat >/etc/docker/daemon.json.new <<'JSON'
{
    "log-driver": "json-file",
    "log-opts": { "max-size": "10m", "max-file": "3" }
}
JSON
    mv /etc/docker/daemon.json.new /etc/docker/daemon.json
fi

log "Installing Docker Engine and NVIDIA's container toolkit"
install_packages docker-ce docker-ce-cli containerd.io docker-buildx-plugin docker-compose-plugin \
    nvidia-container-toolkit

# An unprivileged container may not write device rules: LXC has let the GPUs in already.
nvidia-ctk runtime configure --runtime=docker
nvidia-ctk config --set nvidia-container-cli.no-cgroups=true --in-place
systemctl enable docker
# systemd refuses the fourth start within a minute, which a run after others that were cut off may be.
systemctl reset-failed docker
systemctl restart docker

if ! retry docker info >/dev/null; then
    journalctl -u docker -n 20 --no-pager >&2 || true
    die "Docker does not answer; it needs features.nesting: true on this object"
fi
if [[ "$(docker info --format '{{.Driver}}')" == vfs ]]; then
    warn "Docker stores images with vfs, a full copy for each layer: OpenZFS 2.2 or newer on the node brings overlay2"
fi

log "Running a container"
if ! output="$(docker run --rm hello-world 2>&1)"; then
    printf '%s\n' "$output" >&2
    case "$output" in
        *"reopen fd"*"permission denied"*)
            die "the node's AppArmor profile for LXC is older than this runc: upgrade lxc-pve and pve-container on the Proxmox node"
            ;;
        *) die "Docker runs, but a container does not start" ;;
    esac
fi

clean_packages
log "The Docker layer is ready"
