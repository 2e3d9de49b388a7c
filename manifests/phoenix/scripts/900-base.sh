#!/bin/bash
# Layer 900, base-template: what every Phoenix container has.
#
# Brings the package index up to date, installs the everyday tools, and leaves the functions
# below in /usr/local/lib/phoenix/layer.sh: the layers above are clones of this one and source
# them from there, so each rule (retries, pinned keys, clean-up) is written once.
#
# For Ubuntu 24.04 and Debian 13. Safe to run again.
set -euo pipefail

# What an interactive login would have set: a console or a systemd unit hands over next to nothing.
export HOME="${HOME:-/root}" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

log() {
    printf '==> %s\n' "$*"
}

warn() {
    printf 'WARNING: %s\n' "$*" >&2
}

die() {
    printf 'ERROR: %s\n' "$*" >&2
    exit 1
}

# retry COMMAND...: four attempts with growing pauses, for what depends on the network or on
# apt's index lock, which an update timer may hold just after boot.
retry() {
    local attempt
    for attempt in 1 2 3; do
        if "$@"; then
            return 0
        fi
        warn "attempt ${attempt} of 4 failed: $*"
        sleep $((attempt * attempt))
    done
    "$@"
}

# Fetches the index, and ends what a run that was cut off has begun: until then apt installs nothing.
refresh_packages() {
    retry apt-get update || die "the package index could not be fetched: check the container's gateway and name servers"
    dpkg --configure --pending --force-confdef --force-confold ||
        warn "some packages cannot be configured yet: apt is to fetch what they lack"
    retry apt-get install -y --fix-broken || die "packages that an earlier run left half-installed could not be repaired"
}

install_packages() {
    retry apt-get install -y --no-install-recommends "$@" || die "these packages could not be installed: $*"
}

# trust_key URL FINGERPRINT FILE: stores a repository's signing key, provided that the file
# holds that one primary key and no other.
trust_key() {
    local url="$1" fingerprint="$2" file="$3" download found
    download="$(mktemp)"
    retry curl -fsSL --connect-timeout 20 -o "$download" "$url" || die "the signing key ${url} could not be fetched"
    found="$(gpg --batch --with-colons --show-keys "$download" |
        awk -F: '$1 == "pub" { primary = 1 } $1 == "fpr" && primary { print $10; primary = 0 }')"
    if [[ "$found" != "$fingerprint" ]]; then
        rm -f "$download"
        die "${url} holds the key ${found:-(none)}, expected ${fingerprint}: if its owner announced a new key, change the fingerprint in this script"
    fi
    install -D -m 0644 "$download" "$file"
    rm -f "$download"
}

# add_repository NAME KEY-FILE URL SUITE [COMPONENT...]. Proxmox VE runs on amd64 alone.
add_repository() {
    local name="$1" key="$2"
    shift 2
    printf 'deb [arch=amd64 signed-by=%s] %s\n' "$key" "$*" >"/etc/apt/sources.list.d/${name}.list"
}

# A sealed layer is cloned many times: leave neither archives nor indexes behind.
clean_packages() {
    apt-get autoremove -y
    apt-get clean
    rm -rf /var/lib/apt/lists/*
}

# shellcheck source=/dev/null
. /etc/os-release
case "${ID}-${VERSION_ID:-}" in
    ubuntu-24.04 | debian-13) ;;
    *) die "these layers are written for Ubuntu 24.04 and Debian 13, not for ${PRETTY_NAME:-$ID}: choose another OS template" ;;
esac

log "Telling apt to wait for locks, to retry downloads and to keep changed configuration files"
cat >/etc/apt/apt.conf.d/90phoenix <<'APT'
Acquire::Retries "3";
DPkg::Lock::Timeout "300";
Dpkg::Use-Pty "0";
Dpkg::Options { "--force-confdef"; "--force-confold"; };
APT

log "Upgrading the system"
refresh_packages
retry apt-get upgrade -y || die "the system could not be upgraded"

log "Installing the base packages"
install_packages ca-certificates curl wget gnupg git rsync jq vim nano htop less \
    iproute2 iputils-ping bind9-dnsutils lsof locales tzdata xz-utils zstd
printf 'LANG=C.UTF-8\n' >/etc/default/locale

log "Leaving the layer functions for the templates above"
install -d -m 0755 /usr/local/lib/phoenix
{
    printf '# Made by layer 900 of the Phoenix templates; sourced by the layers above.\n'
    printf 'export HOME="%s" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive\n' "\${HOME:-/root}"
    declare -f log warn die retry refresh_packages install_packages trust_key add_repository clean_packages
} >/usr/local/lib/phoenix/layer.sh

clean_packages
log "The base is ready"
