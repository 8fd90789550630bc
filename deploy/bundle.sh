#!/usr/bin/env bash
# Makes one archive that installs Scanline where there is no network: wheels checked by their hashes, pip itself, the
# systemd unit, the settings' example, the docs.
#
#   deploy/bundle.sh                      for this machine's processor and Python
#   deploy/bundle.sh aarch64 3.11         for 64-bit Raspberry Pi OS 12; x86_64 and aarch64, Python 3.11 and later
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
processor=${1:-$(uname -m)}
version=${2:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$scratch" .
release=$(basename "$scratch"/scanline-*.whl | cut -d- -f2)
name=scanline-$release-$processor-python$version
mkdir -p "$scratch/$name/wheels" "$scratch/$name/docs"
mv "$scratch"/scanline-*.whl "$scratch/$name/wheels/"
platforms=()
for baseline in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${baseline}_$processor"); done
download=("$python" -m pip download --quiet --dest "$scratch/$name/wheels" --only-binary :all: --require-hashes)
"${download[@]}" "${platforms[@]}" --platform "manylinux2014_$processor" --implementation cp --python-version "$version" \
  --requirement deploy/lock/base.txt
"${download[@]}" --requirement deploy/lock/pip.txt
cp deploy/lock/base.txt deploy/install.sh deploy/systemd/scanline.service .env.example LICENSE "$scratch/$name/"
cp docs/*.md "$scratch/$name/docs/"

mkdir -p dist
tar -C "$scratch" --owner=0 --group=0 -czf "dist/$name.tar.gz.$$" "$name"
mv "dist/$name.tar.gz.$$" "dist/$name.tar.gz"
echo "dist/$name.tar.gz"
