#!/bin/sh
# Installs Scanline from the bundle that this file lies in, without a network.
#
#   ./install.sh              into /opt/scanline
#   ./install.sh FOLDER       elsewhere
set -eu
umask 022 # the service runs as another user
bundle=$(cd "$(dirname "$0")" && pwd)
target=${1:-/opt/scanline}
python=${PYTHON:-python3}

# What a venv runs is this Python itself, and the service sees no homes.
real=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
case $target:$real in
  /opt/scanline:/root/* | /opt/scanline:/home/*)
    echo "$real lies in a home directory, which the systemd unit hides: install with PYTHON=/usr/bin/python3," \
      "or say ./install.sh FOLDER to do without the unit" >&2
    exit 1
    ;;
esac

"$python" -m venv --without-pip "$target"
pip() {
  PYTHONPATH=$(echo "$bundle"/wheels/pip-*.whl) "$target/bin/python" -m pip --isolated --disable-pip-version-check "$@"
}
pip install --quiet --no-index --find-links "$bundle/wheels" --require-hashes --requirement "$bundle/base.txt"
pip install --quiet --no-index --no-deps --force-reinstall "$bundle"/wheels/scanline-*.whl
cp -r "$bundle/docs" "$target/"
models=$("$target/bin/python" -c 'from scanline.model import SHIPPED; print(SHIPPED)')
"$target/bin/scanline" verify "$models/digits.int8.onnx"

echo "installed: $target/bin/scanline"
if [ "$target" = /opt/scanline ] && [ -d /etc/systemd/system ]; then
  echo "as a service: cp $bundle/scanline.service /etc/systemd/system/ && systemctl enable --now scanline"
fi
