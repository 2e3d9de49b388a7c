#!/bin/bash
# What the operator adds to the time that Proxmox, the setups and the model take by themselves: the six systems are brought up several
# times, and total, critical path and their ratio printed as a table.
#
#   tests/bench/overhead.sh [RUNS]      3 where left out
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
runs="${1:-3}"
cargo build --quiet --package phoenix-lab --bin demo
printf '%4s  %8s  %13s  %6s\n' run total critical-path factor
for ((run = 1; run <= runs; run++)); do
    cargo run --quiet --package phoenix-lab --bin demo -- --json 2>/dev/null |
        awk -v run="$run" -F'[:,]' '
            /^  "criticalPath"/ { path = $2 } /^  "factor"/ { factor = $2 } /^  "total"/ { total = $2 }
            END { printf "%4d  %7.2fs  %12.2fs  %6.2f\n", run, total, path, factor; exit factor == "" }'
done
