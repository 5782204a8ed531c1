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

# Whether there is such a program. A function of this script with its name is none.
have() {
    type -P "$1" >/dev/null
}

# programs PROGRAM=PACKAGE...: the packages of the programs that are missing.
programs() {
    local missing=() pair
    for pair in "$@"; do
        have "${pair%%=*}" || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] || packages "${missing[@]}"
}

# cargo_tools SUBCOMMAND...: cargo finds them where it installs them, whatever the PATH.
cargo_tools() {
    local tool
    for tool in "$@"; do
        cargo "$tool" --version >/dev/null 2>&1 && continue
        echo "installing from the Rust registry: cargo-$tool"
        # It runs for seconds: what counts is how soon it is there.
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            cargo install --quiet --locked "cargo-$tool"
    done
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

# What shows in which order a store writes, and a disk that fails.
disk() {
    programs strace=strace mkfs.ext4=e2fsprogs xfs_io=xfsprogs
}

# What the agent is measured beside: run by the benchmark, never as services of this machine.
peers() {
    if ! { have prometheus-node-exporter && have zabbix_agentd && have facter && have ansible && have restic; }; then
        without_services packages prometheus-node-exporter zabbix-agent facter ansible-core restic
    fi
}

# Runs a command while packages may not start what they install, nor have it started with the machine.
without_services() {
    local policy=/usr/sbin/policy-rc.d presets=/etc/systemd/system-preset/00-infratrack-peers.preset
    if [ "$(id -u)" -eq 0 ]; then
        [ -e "$policy" ] || own_file "$policy" '#!/bin/sh' 'exit 101'
        own_file "$presets" 'disable *'
    fi
    "$@"
}

# Makes an executable file of lines that goes when this script ends.
own_files=()
trap 'rm -f "${own_files[@]}"' EXIT
own_file() {
    local path=$1
    shift
    own_files+=("$path")
    mkdir -p "$(dirname "$path")"
    printf '%s\n' "$@" >"$path"
    chmod 755 "$path"
}

lint() {
    programs shellcheck=shellcheck
    cargo_tools deny
}

# python NAME PROGRAM PACKAGE...: a Python environment of its own, target/NAME, with a program of the packages. The
# environment has the list of its packages in a file, written last: another list is installed into it.
python() {
    local dir=target/$1 program=$2
    shift 2
    local list=$dir/packages.txt
    [ -x "$dir/bin/$program" ] && printf '%s\n' "$@" | cmp -s - "$list" && return
    have python3 || packages python3 python3-venv
    python3 -m venv "$dir" 2>/dev/null || {
        packages python3-venv
        python3 -m venv "$dir"
    }
    echo "installing from the Python registry: $*"
    "$dir/bin/pip" install --quiet --disable-pip-version-check "$@"
    printf '%s\n' "$@" >"$list"
}

# Every ansible-core that the registry offers for this Python, in target/ansible-2.N; `plays` installs the oldest and the
# newest only. Where there is a newer Python, the newest that runs on that, in target/ansible-newest.
plays() {
    local minors minor newest
    have python3 || packages python3 python3-venv
    minors=$(python3 -m pip index versions ansible-core --disable-pip-version-check 2>/dev/null |
        grep -o '2\.[0-9]*\.[0-9]*' | cut -d. -f2 | sort -nu | awk '$1 >= 14')
    [ -n "$minors" ] || minors=$(printf '%s\n' 14 16 18 19)
    newest=$(tail -n 1 <<<"$minors")
    if [ "${1:-}" != all ]; then minors=$(printf '%s\n' "$(head -n 1 <<<"$minors")" "$newest" | uniq); fi
    for minor in $minors; do
        python "ansible-2.$minor" ansible-playbook "ansible-core>=2.$minor,<2.$((minor + 1))"
    done
    programs git=git openssl=openssl ssh=openssh-client
    if [ "${1:-}" = all ]; then newest_python; fi
}

newest_python() {
    local found
    found=$(for found in python3.{12..15} "$HOME"/.pyenv/versions/3.{12..15}.*/bin/python3; do
        "$found" -c 'import sys; print("%d %s" % (sys.version_info[1], sys.executable))' 2>/dev/null || true
    done | sort -n | tail -n 1 | cut -d' ' -f2)
    [ -n "$found" ] || return 0
    [ -x target/ansible-newest/bin/ansible-playbook ] && return
    "$found" -m venv target/ansible-newest
    echo "installing from the Python registry: ansible-core, for $("$found" --version)"
    target/ansible-newest/bin/pip install --quiet --disable-pip-version-check ansible-core
}

# node_modules FOLDER: what FOLDER/package.json names, in target/ by the folder's last name.
node_modules() {
    local folder=$1 dir=target/${1##*/}
    programs node=nodejs npm=npm
    # npm writes this file last.
    [ "$dir/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ] && return
    mkdir -p "$dir"
    cp "$folder/package.json" "$folder/package-lock.json" "$dir/"
    echo "installing from the Node registry: $folder"
    npm ci --prefix "$dir" --no-audit --no-fund --ignore-scripts --silent
}

# A browser, and what drives it by this path.
browser() {
    [ -x /usr/bin/chromium ] || packages chromium
    node_modules testkit/browser
}

# What lays out repositories, and dnf to try them with.
repository() {
    programs apt-ftparchive=apt-utils createrepo_c=createrepo-c rpmsign=rpm gpg=gnupg dnf=dnf
}

# The package managers' own order of versions, for the distribution's Python.
versions() {
    /usr/bin/python3 -c 'import apt_pkg, rpm' 2>/dev/null || packages dpkg python3-apt python3-rpm
}

# The package managers whose answers the agent reads, what makes roots for them, and other languages for them to speak.
updates() {
    programs apt-get=apt rpmbuild=rpm dnf=dnf createrepo_c=createrepo-c zypper=zypper localedef=libc-bin
    /usr/bin/python3 -c 'import apt_pkg' 2>/dev/null || packages python3-apt
    [ -e /usr/share/i18n/locales/de_DE ] || packages locales
}

# What makes roots of Debian's releases.
releases() {
    programs debootstrap=debootstrap
}

# What boots hosts, and makes them fail.
hosts() {
    programs systemd-nspawn=systemd-container debootstrap=debootstrap ip=iproute2 nft=nftables ssh=openssh-client \
        mkfs.ext4=e2fsprogs xfs_io=xfsprogs pgrep=procps
}

for wanted in "$@"; do
    case "$wanted" in
    postgres | disk | peers | lint | browser | repository | hosts | versions | updates | releases | plays) "$wanted" ;;
    plays-all) plays all ;;
    # What plays are measured beside.
    plays-peers)
        plays
        python ara ara-manage 'ansible-core>=2.16,<2.20' 'ara[server]>=1.8,<1.9' 'gunicorn<26'
        ;;
    ansible) python ansible ansible-lint 'ansible-core>=2.16,<2.22' ansible-lint ;;
    # The provider of logins that the tests log in by.
    oidc) node_modules testkit/oidc ;;
    # What the collector's pages run in the browser: its build embeds it.
    ui) node_modules collector/ui ;;
    # AWS on this machine, for the tests.
    aws) python aws moto_server 'moto[server,secretsmanager,ssm,s3]>=5,<6' ;;
    # What makes requests of the API's document.
    schemathesis) python schemathesis schemathesis 'schemathesis>=4.32,<4.33' ;;
    # What the API's examples are written with.
    scripts) programs curl=curl jq=jq ;;
    packages) cargo_tools deb generate-rpm ;;
    *)
        echo "install.sh: unknown: $wanted" >&2
        exit 64
        ;;
    esac
done
