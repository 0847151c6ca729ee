#!/usr/bin/env bash
# What a GPU shows, in one command: tests, equality, speed, a folder, memory (gpu.py). No network, nothing installed for
# good: wheels in wheels/ beside benchmarks/, if there are any, are unpacked into a temporary folder.
#
#     benchmarks/gpu.sh [--out FOLDER] [--stages tests equal ...] [--device cpu --quick]
#
# PYTHON names the interpreter (python3), WHEELS the folder of wheels.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3} wheels=${WHEELS:-$here/wheels} site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check --target "$site" \
        "$wheels"/*.whl || echo "the wheels in $wheels were not all installed"
fi
export PYTHONPATH="$here/src:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$python" "$here/benchmarks/gpu.py" "$@"
