#!/bin/bash
# Layer 920, base-template-vllm: vLLM in a virtual environment, /opt/vllm, without Docker.
#
# No model is fetched here: a container names its model in spec.vllm, and the operator writes
# the unit that serves it. For Ubuntu 24.04 and Debian 13, on layer 901. Safe to run again.
set -euo pipefail
# shellcheck source=/dev/null
. /usr/local/lib/phoenix/layer.sh

# The operator's probes were checked against the answers of this version. Its wheels bring CUDA 13.
readonly VLLM_VERSION=0.32.0
readonly VLLM_HOME=/opt/vllm
readonly LEAST_DRIVER=580

driver="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | sort -u)" ||
    die "nvidia-smi finds no GPU: this layer stands on layer 901 and needs gpus in its spec"
((${driver%%.*} >= LEAST_DRIVER)) ||
    die "vLLM ${VLLM_VERSION} needs driver ${LEAST_DRIVER} or newer, the node has ${driver}: upgrade it there and rebuild layer 901, or choose an older VLLM_VERSION"

# Wheels of several GB are unpacked on the way; /tmp may be a small tmpfs. Always the same folder: what a run
# that was cut off has left goes with the next.
export TMPDIR=/var/tmp/phoenix-vllm PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
rm -rf "$TMPDIR"
mkdir "$TMPDIR"

log "Installing Python and the C compiler that vLLM's kernels are built with at run time"
refresh_packages
install_packages python3 python3-venv python3-dev build-essential

# pip takes a package for installed that was cut off while it was unpacked, so only an environment that
# was completed is kept; any other begins anew.
readonly COMPLETE="${VLLM_HOME}/.phoenix-complete"
if [[ "$(cat "$COMPLETE" 2>/dev/null)" == "$VLLM_VERSION" ]]; then
    log "vLLM ${VLLM_VERSION} is already in ${VLLM_HOME}"
else
    log "Installing vLLM ${VLLM_VERSION} into ${VLLM_HOME}"
    python3 -m venv --clear "$VLLM_HOME"
    retry "${VLLM_HOME}/bin/pip" install --upgrade pip || die "the Python package index cannot be reached"
    retry "${VLLM_HOME}/bin/pip" install "vllm==${VLLM_VERSION}" || die "vLLM ${VLLM_VERSION} could not be installed"
    printf '%s\n' "$VLLM_VERSION" >"$COMPLETE"
fi

rm -rf "$TMPDIR"
unset TMPDIR
clean_packages
log "The vLLM layer is ready"
"${VLLM_HOME}/bin/vllm" --version
