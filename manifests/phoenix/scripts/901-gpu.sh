#!/bin/bash
# Layer 901, base-template-gpu: the user-space half of the NVIDIA driver, and CUDA.
#
# A container shares the host's kernel module, so the libraries in here must be of exactly that
# version, and no module is built. They come from apt where a repository has that version, else
# from NVIDIA's own installer, which exists for each released driver.
#
# For Ubuntu 24.04 and Debian 13, on a node whose driver is loaded. Safe to run again.
#
# Clones bring these libraries along; when the node gets another driver, the operator runs this
# script in them with PHOENIX_STEP=driver, which the next line offers: the libraries, and no more.
# phoenix: driver-step
set -euo pipefail
# shellcheck source=/dev/null
. /usr/local/lib/phoenix/layer.sh
# shellcheck source=/dev/null
. /etc/os-release

readonly HOST_VERSION_FILE=/proc/driver/nvidia/version
[[ -r "$HOST_VERSION_FILE" ]] ||
    die "${HOST_VERSION_FILE} is missing: load the NVIDIA driver on the Proxmox node (run nvidia-smi there once) and pass its GPUs through"
driver="$(sed -nE 's/^NVRM version:.*[[:space:]]([0-9]{3}\.[0-9]+(\.[0-9]+)?)[[:space:]].*/\1/p' "$HOST_VERSION_FILE")"
[[ -n "$driver" ]] || die "no driver version in ${HOST_VERSION_FILE}: $(head -n 1 "$HOST_VERSION_FILE")"
branch="${driver%%.*}"
log "The host's driver is ${driver}"

# The newest CUDA release that each driver branch can run.
if ((branch >= 580)); then
    cuda=13-0
elif ((branch >= 570)); then
    cuda=12-8
elif ((branch >= 560)); then
    cuda=12-6
else
    die "the host's driver ${driver} is too old for these templates: install 560 or newer on the Proxmox node"
fi

# NVIDIA signs with one key for Ubuntu and with another for Debian 13, which refuses SHA-1.
case "${ID}-${VERSION_ID}" in
    ubuntu-24.04)
        distribution=ubuntu2404
        key=3bf863cc
        fingerprint=EB693B3035CD5710E231E123A4B469963BF863CC
        packages=("libnvidia-compute-${branch}" "nvidia-utils-${branch}")
        ;;
    debian-13)
        distribution=debian13
        key=8793F200
        fingerprint=02182E60104FCDC26EAE1B8597A5D4CB8793F200
        packages=(libcuda1 libnvidia-ml1 libnvidia-ptxjitcompiler1 libnvidia-nvvm4 nvidia-smi)
        ;;
    *) die "no CUDA repository is known for ${PRETTY_NAME:-$ID}: this script knows Ubuntu 24.04 and Debian 13" ;;
esac

log "Adding NVIDIA's repository for ${distribution}"
repository="https://developer.download.nvidia.com/compute/cuda/repos/${distribution}/x86_64"
trust_key "${repository}/${key}.pub" "$fingerprint" /etc/apt/keyrings/nvidia-cuda.asc
add_repository nvidia-cuda /etc/apt/keyrings/nvidia-cuda.asc "${repository}/" /

# Without the pin, dependencies would be taken in their newest version, and an upgrade inside a
# clone would part the libraries from the host's module.
cat >/etc/apt/preferences.d/phoenix-nvidia <<PIN
Package: *nvidia* libcuda1
Pin: version ${driver}-*
Pin-Priority: 1001
PIN
refresh_packages

# What an earlier run left, here or in the layer beneath, is held: apt would refuse to change it.
held_driver_packages() {
    apt-mark showhold | grep -E 'nvidia|^libcuda1' || true
}

install_driver_packages() {
    local version="$1" held
    log "Installing the driver's libraries ${version} by apt"
    mapfile -t held < <(held_driver_packages)
    ((${#held[@]} == 0)) || apt-mark unhold "${held[@]}"
    install_packages --allow-downgrades "${packages[@]/%/=${version}}"
    apt-mark hold "${packages[@]}"
}

install_driver_archive() {
    local archive="NVIDIA-Linux-x86_64-${driver}.run" folder=/var/tmp/phoenix-nvidia held
    log "No repository has ${driver}: taking NVIDIA's installer"
    # Always the same folder: what a run that was cut off has left goes with the next.
    rm -rf "$folder"
    mkdir "$folder"
    retry curl -fsSL --connect-timeout 20 -o "${folder}/${archive}" \
        "https://download.nvidia.com/XFree86/Linux-x86_64/${driver}/${archive}" ||
        retry curl -fsSL --connect-timeout 20 -o "${folder}/${archive}" \
            "https://us.download.nvidia.com/tesla/${driver}/${archive}" ||
        die "NVIDIA offers no installer for ${driver}: install a released driver on the Proxmox node"
    install_packages kmod
    mapfile -t held < <(held_driver_packages)
    # libraries of two versions side by side would be worse than none
    ((${#held[@]} == 0)) || apt-get purge -y --allow-change-held-packages "${held[@]}"
    sh "${folder}/${archive}" --silent --no-kernel-modules --no-backup --no-x-check --tmpdir "$folder" ||
        die "NVIDIA's installer failed; see /var/log/nvidia-installer.log"
    rm -rf "$folder"
}

if [[ "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sort -u)" == "$driver" ]]; then
    log "The driver's libraries ${driver} are already here"
else
    version="$(apt-cache madison "${packages[0]}" |
        awk -v prefix="${driver}-" 'index($3, prefix) == 1 && !found++ { print $3 }')"
    if [[ -n "$version" ]]; then
        install_driver_packages "$version"
    else
        install_driver_archive
    fi
fi

if [[ "${PHOENIX_STEP:-}" == driver ]]; then
    apt-get clean
    log "The driver's libraries are of the host's version"
    nvidia-smi -L
    exit 0
fi

log "Installing CUDA ${cuda/-/.}: the runtime libraries and the compiler that kernels are built with at run time"
install_packages "cuda-libraries-${cuda}" "cuda-minimal-build-${cuda}"
[[ -e /usr/local/cuda ]] || ln -sfn "/usr/local/cuda-${cuda/-/.}" /usr/local/cuda
cat >/etc/profile.d/phoenix-cuda.sh <<'PROFILE'
export CUDA_HOME=/usr/local/cuda
export PATH="$PATH:$CUDA_HOME/bin"
PROFILE

apt-get install -y --no-install-recommends nvtop || warn "nvtop is not in this system's repositories: left out"

clean_packages
log "The GPU layer is ready"
nvidia-smi -L
