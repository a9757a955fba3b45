#!/usr/bin/env bash
# Makes .venv equal to requirements.lock, with anatolab itself in editable form; does nothing when it already is.
# Usage: tools/env.sh [python]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
stamp=.venv/.anatolab-lock
unset UV_FIND_LINKS # a folder that offers a CPU-only torch beside the index's torchvision gives a pair that cannot be imported
unset PYTHONPATH VIRTUAL_ENV CONDA_PREFIX

wanted=$(cat requirements.lock pyproject.toml | cksum)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if [ ! -x .venv/bin/python ]; then
    if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
        echo "make: '$python' is not Python 3.11 or 3.12; name one with 'make PYTHON=/path/to/python3.11'." >&2
        exit 1
    fi
fi

uv=uv
if ! uv --version >/dev/null 2>&1; then
    uv=.venv-uv/bin/uv # of its own, because .venv is kept equal to the lock
    if [ ! -x "$uv" ]; then
        echo "make: no uv on PATH, installing it into .venv-uv"
        "$python" -m venv .venv-uv
        .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check uv
    fi
fi

[ -x .venv/bin/python ] || "$uv" venv --quiet --no-project --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
# Compiled here once: where PYTHONDONTWRITEBYTECODE is set, every process would compile torch and monai anew.
rm -f "$stamp"
"$uv" pip sync --quiet --require-hashes --compile-bytecode --python .venv/bin/python requirements.lock
"$uv" pip install --quiet --no-deps --python .venv/bin/python --editable . # a folder has no hash
.venv/bin/python - <<'PY'
import torchvision  # fails where torch and torchvision do not belong together

import anatolab

print(f"make: .venv holds anatolab {anatolab.__version__} and the packages of requirements.lock, whose hashes were verified")
PY
echo "$wanted" >"$stamp"
