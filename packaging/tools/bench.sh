#!/usr/bin/env bash
# Measures a release build on this machine: a simulated fleet against a demo, then its ledger against the
# tables. Prints figures; there is no baseline beside them yet, so they compare with nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
chmod 755 "$work"
demo=""
finish() {
    [ -z "$demo" ] || { kill -INT "$demo" && wait "$demo"; } 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

any=127.0.0.1:0
target/release/infratrack-collector --log warn demo --data-dir "$work/demo" \
    --operator-listen $any --agent-listen $any --enroll-listen $any >/dev/null &
demo=$!
for _ in $(seq 300); do
    [ -s "$work/demo/demo.json" ] && break
    sleep 0.1
done

fleet() {
    echo "== $1"
    shift
    target/release/infratrack-fleet run --demo-json "$work/demo/demo.json" --ledger "$work/ledger" \
        --state-dir "$work/fleet" "$@"
}
fleet "500 agents, a heartbeat and an event a second each" --agents-count 500 --duration-s 20
grep -h VmRSS "/proc/$demo/status" | sed 's/VmRSS:/collector RSS:/'
