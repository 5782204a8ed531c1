#!/usr/bin/env bash
# Lints the Ansible collection as it is installed, by the production profile, and how its Python is laid out.
set -euo pipefail
cd "$(dirname "$0")/../.."

collections=$(mktemp -d)
trap 'rm -rf "$collections"' EXIT
PATH=$PWD/target/ansible/bin:$PATH
export ANSIBLE_COLLECTIONS_PATH=$collections ANSIBLE_HOME=$collections/home
ansible-galaxy collection install --force ansible -p "$collections" >/dev/null
black --check --line-length 120 --target-version py39 ansible testkit/bench/ansible
for kind in callback inventory; do
    ansible-doc --type "$kind" infratrack.infratrack.infratrack >/dev/null
done
cd ansible
ansible-lint --offline --project-dir . -q
rm -rf .ansible
