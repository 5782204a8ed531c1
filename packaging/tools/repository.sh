#!/usr/bin/env bash
# Lays the packages of target/packages out as an apt and a dnf repository below a directory, both signed:
#
#   repository.sh DIR KEY
#
# KEY is a secret key in the caller's GnuPG home, named as gpg names it. Packages that lie there already are kept,
# so that hosts can go back. What is new is written beside the old and put in its place at the end: a host that
# reads meanwhile sees one or the other. Serve DIR over HTTP; hosts need DIR/infratrack.asc once.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -eq 2 ] || {
    echo "usage: repository.sh DIR KEY" >&2
    exit 64
}
mkdir -p "$1"
out=$(cd "$1" && pwd)
key=$2
packages=$PWD/target/packages
suite=stable
gpg=$(command -v gpg)
gpg() {
    "$gpg" --batch --yes --quiet --local-user "$key" "$@"
}

apt_repository() {
    local root=$out/apt dists arch deb
    mkdir -p "$root/pool"
    for deb in "$packages"/*.deb; do
        # A version that was published stays what it is.
        [ -e "$root/pool/${deb##*/}" ] || cp "$deb" "$root/pool/"
    done
    dists=$root/dists/.$suite
    rm -rf "$dists"
    for arch in amd64 arm64; do
        mkdir -p "$dists/main/binary-$arch"
        (cd "$root" && apt-ftparchive --arch "$arch" packages pool) >"$dists/main/binary-$arch/Packages"
        gzip --best --no-name --keep "$dists/main/binary-$arch/Packages"
    done
    apt-ftparchive -o APT::FTPArchive::Release::Origin=Infratrack \
        -o APT::FTPArchive::Release::Label=Infratrack \
        -o APT::FTPArchive::Release::Suite="$suite" -o APT::FTPArchive::Release::Codename="$suite" \
        -o APT::FTPArchive::Release::Architectures="amd64 arm64" \
        -o APT::FTPArchive::Release::Components=main release "$dists" >"$root/dists/.Release"
    mv "$root/dists/.Release" "$dists/Release"
    gpg --clearsign --output "$dists/InRelease" "$dists/Release"
    gpg --armor --detach-sign --output "$dists/Release.gpg" "$dists/Release"
    replace "$root/dists/$suite" "$dists"
}

dnf_repository() {
    local root=$out/rpm rpm
    mkdir -p "$root"
    for rpm in "$packages"/*.rpm; do
        [ -e "$root/${rpm##*/}" ] && continue
        cp "$rpm" "$root/.new.rpm"
        rpmsign --define "_gpg_name $key" --define "__gpg $gpg" --addsign "$root/.new.rpm" >/dev/null
        mv "$root/.new.rpm" "$root/${rpm##*/}"
    done
    rm -rf "$root/.new"
    mkdir "$root/.new"
    createrepo_c --quiet --outputdir "$root/.new" "$root"
    gpg --armor --detach-sign --output "$root/.new/repodata/repomd.xml.asc" "$root/.new/repodata/repomd.xml"
    replace "$root/repodata" "$root/.new/repodata"
    rmdir "$root/.new"
}

# replace OLD NEW: directories
replace() {
    rm -rf "$1.old"
    [ ! -e "$1" ] || mv "$1" "$1.old"
    mv "$2" "$1"
    rm -rf "$1.old"
}

apt_repository
dnf_repository
gpg --armor --export "$key" >"$out/infratrack.asc"
echo "a repository of $(find "$out/apt/pool" -name '*.deb' | wc -l) .deb and $(find "$out/rpm" -name '*.rpm' | wc -l) .rpm in $1"
