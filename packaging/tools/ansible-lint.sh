#!/usr/bin/env bash
# Lints the Ansible collection as it is installed, by the production profile.
set -euo pipefail
cd "$(dirname "$0")/../.."

collections=$(mktemp -d)
trap 'rm -rf "$collections"' EXIT
PATH=$PWD/target/ansible/bin:$PATH
export ANSIBLE_COLLECTIONS_PATH=$collections ANSIBLE_HOME=$collections/home
ansible-galaxy collection install --force ansible -p "$collections" >/dev/null
cd ansible
ansible-lint --offline --project-dir . -q
rm -rf .ansible
