#!/usr/bin/env bash
# Plays real playbooks with the collection's plugins, on several versions of Ansible.
#
#   ansible-tests.sh [smoke|full]
#
# smoke: the oldest and the newest ansible-core for this Python, side by side. full: all of them, and all faults.
set -euo pipefail
cd "$(dirname "$0")/../.."

length=${1:-smoke}
case $length in
smoke) packaging/tools/install.sh plays ;;
full) packaging/tools/install.sh plays-all ;;
*)
    echo "ansible-tests.sh [smoke|full]" >&2
    exit 64
    ;;
esac

# A run of `make test` has built it.
[ -x target/debug/infratrack-collector ] || cargo build --locked --bin infratrack-collector

export INFRATRACK_TESTS=$length PYTHONDONTWRITEBYTECODE=1
folders=()
for folder in $(printf '%s\n' target/ansible-2.* target/ansible-newest | sort -V); do
    [ -x "$folder/bin/ansible-playbook" ] && folders+=("$PWD/$folder")
done
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# tests FOLDER MODULE...: in the environment of that folder; its output is shown where something failed.
tests() {
    local folder=$1 log
    shift
    log=$logs/$(basename "$folder")-$1
    if (cd ansible/tests && INFRATRACK_ANSIBLE=$folder "$folder/bin/python" -m unittest "$@") >"$log" 2>&1; then
        echo "$(basename "$folder"): $(tail -n 1 "$log"), $(grep -o 'in [0-9.]*s' "$log")"
    else
        cat "$log"
        echo "$(basename "$folder"): failed: $*" >&2
        return 1
    fi
}

# The oldest in the smoke form: what differs between versions.
oldest=(
    test_plays.Plays.test_every_kind_of_outcome_is_told_and_the_play_is_as_without
    test_faults.Faults.test_a_play_that_is_killed_is_interrupted
    test_inventory.Lists.test_hosts_have_groups_and_variables_and_are_cached
)

if [ "$length" = smoke ]; then
    # Those for this Python, of which the last is the newest.
    mapfile -t folders < <(printf '%s\n' "${folders[@]}" | grep -v newest)
    newest=${folders[-1]}
    tests "$newest" test_plays test_faults &
    one=$!
    failed=0
    tests "${folders[0]}" "${oldest[@]}" || failed=1
    tests "$newest" test_units test_forwarder test_inventory test_collector || failed=1
    wait "$one" || failed=1
    exit $failed
fi

# What needs no play, once; then the versions, two at a time.
tests "${folders[-1]}" test_units test_forwarder
failed=0
under_way=()
for folder in "${folders[@]}"; do
    if [ ${#under_way[@]} -ge 2 ]; then
        wait "${under_way[0]}" || failed=1
        under_way=("${under_way[@]:1}")
    fi
    tests "$folder" test_plays test_faults test_inventory test_collector &
    under_way+=($!)
done
for process in "${under_way[@]}"; do
    wait "$process" || failed=1
done
exit $failed
