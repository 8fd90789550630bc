#!/usr/bin/env bash
# Makes what the arm64 tests run in, on an x86-64 Debian: Debian's Python and C++ library for arm64, unpacked and never
# configured; the base install's wheels for aarch64; and the face of two boards, Raspberry Pi 4 (Cortex-A72) and 5
# (Cortex-A76), whose processors qemu imitates.
#
#   deploy/arm64.sh FOLDER        make it in FOLDER, some 300 MB; what is there is kept
#   FOLDER/pi4 -m scanline info scanline/models/digits.int8.onnx
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath -m "${1:?usage: deploy/arm64.sh FOLDER}")
mkdir -p "$target"

if ! command -v qemu-aarch64-static >/dev/null || ! command -v mmdebstrap >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends qemu-user-static mmdebstrap >/dev/null
fi
if [[ ! -d $target/root ]]; then
  rm -rf "$target/root.new"
  # shellcheck disable=SC1091
  mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,libstdc++6 \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$target/root.new"
  mv "$target/root.new" "$target/root"
fi
python=$(basename "$(realpath "$target/root/usr/bin/python3")")
lock=$(sha256sum deploy/lock/base.txt | cut -c1-12)
if [[ ! -d $target/packages-$lock ]]; then
  rm -rf "$target/packages"*
  platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64)
  "${PYTHON:-python3}" -m pip install --quiet --target "$target/packages.new" "${platforms[@]}" --implementation cp \
    --python-version "${python#python}" --only-binary :all: --require-hashes --requirement deploy/lock/base.txt
  mv "$target/packages.new" "$target/packages-$lock"
fi

# A board: what /proc/cpuinfo says there (onnxruntime looks), before everything else from the root.
board() {
  local name=$1 cpu=$2 part=$3 features=$4
  mkdir -p "$target/boards/$name/proc"
  for entry in usr lib bin etc; do ln -sfn "../../root/$entry" "$target/boards/$name/$entry"; done
  for core in 0 1 2 3; do
    printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\n' \
      "$core" "$features"
    printf 'CPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 3\n\n' "$part"
  done >"$target/boards/$name/proc/cpuinfo"
  cat >"$target/$name" <<EOF
#!/bin/sh
export PYTHONPATH=$target/packages-$lock:$PWD PYTHONDONTWRITEBYTECODE=1
exec qemu-aarch64-static -cpu $cpu -L $target/boards/$name $target/root/usr/bin/$python "\$@"
EOF
  chmod +x "$target/$name"
}
board pi4 cortex-a72 0xd08 'fp asimd evtstrm crc32 cpuid'
board pi5 cortex-a76 0xd0b 'fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp'
echo "$target"
