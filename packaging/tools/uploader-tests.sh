#!/usr/bin/env bash
# Tests of infra/bin/infratrack-plan: rules, retries and claims, and with the real terraform where the machine has one.
set -euo pipefail
cd "$(dirname "$0")/../../infra/tests"

type -P python3 >/dev/null || { echo "please install: python3" >&2; exit 1; }
type -P terraform >/dev/null || echo "SKIPPED: plans of the real terraform; there is none on this machine" >&2
PYTHONDONTWRITEBYTECODE=1 python3 -W error::ResourceWarning -m unittest "$@"
