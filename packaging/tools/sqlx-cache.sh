#!/usr/bin/env bash
# Writes collector/.sqlx, by which the SQL in the code is checked without a database, or checks that it is
# fresh. Works with a throw-away Postgres of its own.
set -euo pipefail

mode=${1:?usage: sqlx-cache.sh write|check}
cd "$(dirname "$0")/../.."

server_bin=$(command -v postgres || find /usr/lib/postgresql -path '*/bin/postgres' | sort -V | tail -n 1)
bin=$(dirname "$server_bin")
psql=$(command -v psql)
work=$(mktemp -d)
as=()
if [ "$(id -u)" -eq 0 ]; then
    # Postgres refuses to run as root.
    chown postgres: "$work"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
server=""
finish() {
    [ -z "$server" ] || { kill -INT "$server" && wait "$server"; } 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

cd /
"${as[@]}" "$bin/initdb" -D "$work/data" -U sqlx -A trust --no-sync -E UTF8 --locale=C.UTF-8 >"$work.log"
rm -f "$work.log"
cd - >/dev/null
"${as[@]}" "$bin/postgres" -D "$work/data" -k "$work" -c listen_addresses= -c fsync=off 2>/dev/null &
server=$!
sql() { "${as[@]}" "$psql" -h "$work" -U sqlx -d "$1" -qXv ON_ERROR_STOP=1 "${@:2}"; }
for _ in $(seq 100); do
    sql postgres -c 'select 1' >/dev/null 2>&1 && break
    sleep 0.1
done
sql postgres -c 'create database infratrack'
for migration in collector/migrations/*.sql; do
    sql infratrack <"$migration"
done

mkdir "$work/cache"
[ "$(id -u)" -ne 0 ] || chmod 755 "$work"
# The macros write what they learn there when they run; a changed file makes them run.
touch collector/src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$work/cache" DATABASE_URL="postgres://sqlx@localhost/infratrack?host=$work" \
    cargo check --quiet -p infratrack-collector --lib

if [ "$mode" = write ]; then
    rm -rf collector/.sqlx
    cp -r "$work/cache" collector/.sqlx
    rm -f collector/.sqlx/*.tmp
    echo "wrote $(find collector/.sqlx -name 'query-*.json' | wc -l) statements to collector/.sqlx"
elif ! diff -rq "$work/cache" collector/.sqlx; then
    echo "collector/.sqlx is stale: run make sqlx" >&2
    exit 1
fi
