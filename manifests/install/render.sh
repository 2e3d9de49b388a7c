#!/bin/bash
# Makes what follows from other files, so that nothing is kept by hand twice:
#   charts/phoenix/crds/            from crds/*.yaml
#   manifests/install/crds.yaml     from crds/*.yaml
#   manifests/install/operator.yaml from charts/phoenix, with its own values
#
# render.sh          writes them
# render.sh --check  changes nothing; fails, and says how they differ, where they are out of date
#
# $HELM names the helm to use: a command, possibly with leading arguments (default: helm).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
read -ra helm <<<"${HELM:-helm}"
checking=false
case "${1:-}" in
    "") ;;
    --check) checking=true ;;
    *)
        echo "usage: $0 [--check]" >&2
        exit 2
        ;;
esac

made="$(mktemp -d)"
trap 'rm -rf "$made"' EXIT
mkdir -p "$made/charts" "$made/manifests/install"
cp -R "$root/charts/phoenix" "$made/charts/phoenix"
rm -rf "$made/charts/phoenix/crds"
mkdir "$made/charts/phoenix/crds"

cd "$root"
shopt -s nullglob
crds=(crds/*.yaml)
if ((${#crds[@]} == 0)); then
    echo "no CRDs in crds/: write them with 'cargo run -p phoenix-crds --example generate'" >&2
    exit 1
fi
for crd in "${crds[@]}"; do
    cp "$crd" "$made/charts/phoenix/crds/"
    # A list of documents, whether or not the file begins with a separator itself.
    printf -- '---\n'
    sed '1{/^---$/d}' "$crd"
done >"$made/manifests/install/crds.yaml"

# What Helm would use to find its own release would be untrue here.
"${helm[@]}" template phoenix "$made/charts/phoenix" --namespace phoenix-system --skip-crds |
    sed -e '/^ *helm\.sh\/chart: /d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' -e '/^$/d' \
        >"$made/manifests/install/operator.yaml"

outputs=(charts/phoenix/crds manifests/install/crds.yaml manifests/install/operator.yaml)
if [[ "$checking" == false ]]; then
    for output in "${outputs[@]}"; do
        rm -rf "${root:?}/$output"
        cp -R "$made/$output" "$output"
    done
    exit 0
fi

status=0
for output in "${outputs[@]}"; do
    diff -ru "$output" "$made/$output" || status=1
done

# One version for the operator and its chart.
workspace="$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)"
chart="$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' charts/phoenix/Chart.yaml)"
if [[ "$workspace" != "$chart" ]]; then
    echo "charts/phoenix/Chart.yaml: appVersion is $chart, the workspace's version $workspace" >&2
    status=1
fi
if ((status != 0)); then
    echo "generated files are out of date: run manifests/install/render.sh" >&2
fi
exit "$status"
