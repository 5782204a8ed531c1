#!/usr/bin/env bash
# Builds each mutant, a program with one fault on purpose, and runs the tests that must notice it. Fails where
# one goes unnoticed.
set -euo pipefail
cd "$(dirname "$0")/../.."

export CARGO_TARGET_DIR=target/mutants
caught=0

# tests FEATURES PACKAGE TEST-ARGUMENTS...
tests() {
    local features=$1 package=$2
    shift 2
    cargo build --quiet --locked --workspace --bins --features "$features" || exit 2
    cargo test --quiet --locked -p infratrack-collector -p infratrack-agent -p infratrack-testkit --no-run \
        --features "$features" || exit 2
    cargo test --quiet --locked -p "$package" --features "$features" "$@"
}

# mutant FEATURE PACKAGE TEST-ARGUMENTS...
mutant() {
    local feature=$1 package=$2
    shift 2
    echo "== $feature"
    if tests "$feature" "$package" "$@" >"$CARGO_TARGET_DIR.log" 2>&1; then
        echo "$feature was NOT noticed; see $CARGO_TARGET_DIR.log"
        exit 1
    fi
    grep -m 3 -E 'VIOLATION|panicked at|assertion' "$CARGO_TARGET_DIR.log"
    echo "$feature was noticed"
    caught=$((caught + 1))
}

mutant infratrack-collector/mutant-no-deny-check infratrack-collector --test it identity::a_revoked_host
INFRATRACK_SEED=3 INFRATRACK_FAULTS=30 INFRATRACK_KINDS=KillCollector,KillPostgres,KillBackend \
    mutant infratrack-collector/mutant-ack-before-commit infratrack-testkit --test it nemesis::a_thousand -- --ignored
mutant infratrack-agent/mutant-no-fdatasync infratrack-testkit --test it power
echo "$caught mutants caught"
