#!/usr/bin/env bash
# Runs the real orders through the host and holds what the handlers remember against the checker's own sums.
#   tests/oracle/run.sh CSV BACKEND_URL [KILLS]
# The backend must be empty. KILLS hosts are killed with SIGKILL on the way; the last one runs until nothing waits.
set -euo pipefail
csv=$1 backend=$2 kills=${3:-0}
root=$(cd "$(dirname "$0")/../.." && pwd)
tidemill="${CARGO_TARGET_DIR:-$root/target}/debug/tidemill"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() { "$tidemill" --config "$root/tidemill.toml" --backend "$backend" "$@"; }

(cd "$root" && "${CARGO_TARGET_DIR:-$root/target}/debug/retail" "$csv") >"$work/events.jsonl"
echo "publish: $(run publish "$work/events.jsonl" --json 2>"$work/refused" || true)"
echo "refused, by the first place that is named:"
sed -E 's/^line [0-9]+: (event [^ ]+: )?//; s/[:;].*//; s/[0-9]+/N/g' "$work/refused" | sort | uniq -c
for ((kill = 1; kill <= kills; kill++)); do
    # The host itself and not a shell around it: $! must be what is killed.
    RUST_LOG=error "$tidemill" --config "$root/tidemill.toml" --backend "$backend" run --until-idle &
    host=$!
    sleep "$(printf '0.%02d' $((RANDOM % 15 + 12)))"
    kill -9 $host
    wait $host 2>/dev/null || true
    echo "kill $kill: $(run status --json | python3 -c '
import json, sys
handlers = json.load(sys.stdin)["handlers"]
print(sum(h["committed"] for h in handlers), "committed,", sum(h["waiting"] for h in handlers), "waiting,", sum(h["pending"] for h in handlers), "in dead hands")')"
done
begun=$(date +%s.%N)
RUST_LOG=error run run --until-idle
echo "the last run took $(python3 -c "import time; print(round(time.time() - $begun, 1))") s"
run status
for handler in inventory-service analytics-service; do run state $handler --json; done >"$work/state.jsonl"
python3 "$root/tests/oracle/retail.py" compare "$csv" "$work/state.jsonl"
