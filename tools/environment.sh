#!/bin/sh
# Makes .boot (uv) and .venv (everything pinned by hash in requirements.lock) from a bare python3.
# Run by the Makefile when the lock changes. Falls back to plain pip if uv cannot be installed.
set -eu
cd "$(dirname "$0")/.."

find_python() {
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  echo "penstock needs Python 3.11 or newer, and none was found." >&2
  echo "  fix: install one, or name it: make env PYTHON=/path/to/python3.11" >&2
  return 1
}

make_venv() { # folder
  [ -x "$1/bin/python" ] && "$1/bin/python" -c '' 2>/dev/null && return 0
  rm -rf "$1"
  "$python" -m venv "$1" || {
    echo "python -m venv failed." >&2
    echo "  fix: on Debian and Ubuntu, apt install python3-venv" >&2
    return 1
  }
}

python=$(find_python)
make_venv .boot
if cmp -s tools/boot.lock .boot/installed.lock && [ -x .boot/bin/uv ]; then
  uv=.boot/bin/uv
elif .boot/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/boot.lock; then
  cp tools/boot.lock .boot/installed.lock
  uv=.boot/bin/uv
else
  echo "uv could not be installed; going on with pip, which is slower." >&2
  uv=
fi

if [ -n "$uv" ]; then
  [ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
  export UV_LINK_MODE="${UV_LINK_MODE:-copy}"
  "$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
  "$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
else
  make_venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
fi
