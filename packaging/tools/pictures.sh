#!/usr/bin/env bash
# Copies those pictures into docs/pictures that docs/ui.md shows, from what `make test` took in target/pictures.
set -euo pipefail
cd "$(dirname "$0")/../.."

mkdir -p docs/pictures
grep -o '(pictures/[a-z0-9-]*\.png)' docs/ui.md | tr -d '()' | sort -u | while read -r picture; do
    cp "target/$picture" "docs/$picture"
done
