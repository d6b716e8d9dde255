#!/usr/bin/env bash
# Builds the wheel and runs `dyntok demo` from it in a folder whose own `pipelines` package must not be picked up.
set -euo pipefail
python=$(realpath -s "${PYTHON:-python3}")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work/dist" "$root"
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" \
  "$(echo "$work"/dist/dyntok-*.whl)[demo]"

mkdir -p "$work/foreign/pipelines"
echo 'raise RuntimeError("the decoy package was imported")' > "$work/foreign/pipelines/__init__.py"
cd "$work/foreign"
"$work/venv/bin/dyntok" demo --out out
grep -q "chart-curve" out-report.html
"$work/venv/bin/dyntok" verify out
echo "wheel demo: ok"
