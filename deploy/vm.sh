#!/usr/bin/env bash
# Makes what the tests of the systemd unit boot in a virtual machine, with a kernel and cgroups of its own: Debian's
# packages, unpacked, and Debian's kernel.
#
#   deploy/vm.sh FOLDER           make it in FOLDER, some 450 MB; what is there is kept
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${1:?usage: deploy/vm.sh FOLDER}")
mkdir -p "$target"

if ! command -v qemu-system-x86_64 >/dev/null || ! command -v mmdebstrap >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends qemu-system-x86 mmdebstrap >/dev/null
fi
if [[ ! -d $target/root ]]; then
  rm -rf "$target/root.new"
  # shellcheck disable=SC1091
  mmdebstrap --quiet --variant=minbase --include=systemd-sysv,python3,python3-venv,libstdc++6,linux-image-cloud-amd64 \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$target/root.new"
  mv "$target/root.new" "$target/root"
fi
echo "$target"
