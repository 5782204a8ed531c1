#!/usr/bin/env bash
# The long campaigns: hours. One test at a time, since some measure what a fleet feels; the agent's idle
# hour beside them, since it only counts its own.
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --release --workspace --bins --locked --quiet
target/release/infratrack-bench-agent --hour >target/soak-agent.log 2>&1 &
hour=$!
# It stops what it started at its end, not when it is killed.
trap 'wait "$hour" || true' EXIT

cargo test --release --workspace --locked -- --ignored --nocapture --test-threads=1

INFRATRACK_ALL_WINDOWS=1 cargo test --release --workspace --locked --test it -- ui::

export CARGO_TARGET_DIR=target/failpoints
cargo build --workspace --bins --locked --quiet --features infratrack-testkit/failpoints
cargo test -p infratrack-testkit --locked --features failpoints --test it -- \
    --include-ignored --nocapture power::a_kill points::
unset CARGO_TARGET_DIR

packaging/tools/ansible-tests.sh full
packaging/tools/mutants.sh
wait "$hour" || {
    cat target/soak-agent.log
    exit 1
}
