#!/bin/sh
# install-kustomize.sh FOLDER  puts kustomize, as Debian 13 packages it, into FOLDER of a Debian machine that has no such package: unpacked, nothing installed.
# Needs root, for apt. The mirror is the machine's own.
set -eu
folder=$1
[ -x "$folder/usr/bin/kustomize" ] && exit 0
apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
[ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] || apt-get -o DPkg::Lock::Timeout=300 update -q
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | head -1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$apt/sources.list"
set -- -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root
apt-get "$@" update -q
cd "$apt"
apt-get "$@" download kustomize/trixie
dpkg -x kustomize_*.deb "$folder"
rm -rf "$apt"
"$folder/usr/bin/kustomize" version
