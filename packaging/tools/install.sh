#!/usr/bin/env bash
# Installs what a make target needs, from the distribution's packages and the Rust registry.
# Where it lacks the right to, it says what to install, and fails.
set -euo pipefail

# Names packages for apt; asks for nothing that is there.
packages() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "please install: $*   (apt-get install $*)" >&2
        exit 1
    fi
    echo "installing from the distribution: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --no-install-recommends "$@" >/dev/null
}

have() {
    command -v "$1" >/dev/null 2>&1
}

compiler() {
    have cc || packages gcc libc6-dev
}

postgres() {
    compiler
    have postgres && return
    local found
    for found in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres; do
        [ -x "$found" ] && return
    done
    packages postgresql
}

trace() {
    have strace || packages strace
}

lint() {
    have shellcheck || packages shellcheck
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "installing from the Rust registry: cargo-deny"
        cargo install --quiet --locked cargo-deny
    fi
}

for wanted in "$@"; do
    case "$wanted" in
    postgres | trace | lint) "$wanted" ;;
    *)
        echo "install.sh: unknown: $wanted" >&2
        exit 64
        ;;
    esac
done
