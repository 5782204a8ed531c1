#!/usr/bin/env bash
# Builds the packages into target/packages: a .deb and a .rpm of the agent and of the collector, for this
# machine's architecture, and the Ansible collection.
#
#   packages.sh [VERSION]
#
# VERSION is theirs in place of the crates' own, and what lies there already stays. PROFILE=dev packs the programs that
# `make test` builds and runs, in place of those that are shipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=${1:-}
target=${CARGO_TARGET_DIR:-target}
out=target/packages
[ -n "$version" ] || rm -rf "$out"
mkdir -p "$out"

# Man pages, completions and example configurations, made of the programs.
cargo run --locked --quiet -p infratrack-testkit --features test-util --bin infratrack-package-files -- target/package

if [ "${PROFILE:-}" = dev ]; then
    cargo build --locked --quiet --workspace --bins --features infratrack-testkit/test-util
fi

package() { # NAME PROFILE
    local profile=${PROFILE:-$2} compress=zstd
    # The strongest compression takes longer than the build.
    [ "$profile" != dev ] || compress=gzip
    [ "$profile" = dev ] || cargo build --locked --quiet --profile "$profile" -p "$1"
    cargo deb --quiet --no-build --no-strip --fast -p "$1" --profile "$profile" --output "$out" \
        ${version:+--deb-version "$version-1"}
    cargo generate-rpm -p "${1#infratrack-}" --profile "$profile" --target-dir "$target" --output "$out" \
        --payload-compress "$compress" \
        ${version:+--set-metadata "version = \"$version\""}
}
package infratrack-agent agent
package infratrack-collector release
target/ansible/bin/ansible-galaxy collection build --force --output-path "$out" ansible >/dev/null
ls -l "$out"
