#!/usr/bin/env bash
# Runs the tests on hosts that boot, with the packages in target/packages: those of this version, and the same
# build under a newer one, to upgrade to.
set -euo pipefail
cd "$(dirname "$0")/../.."

packaging/tools/packages.sh 0.1.1
PATH=$PWD/target/ansible/bin:$PATH
cargo test --locked -p infratrack-testkit --features e2e,test-util --test e2e -- --nocapture
