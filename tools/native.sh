#!/bin/sh
# Builds the accelerator of the fold into .venv, where cargo is installed. Without it, or if the build
# fails, the fold is the one in Python: the same leaves at a higher price, as `penstock doctor` says.
set -eu
cd "$(dirname "$0")/.."

into=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
if ! command -v cargo >/dev/null; then
  echo "cargo is not installed: the fold stays in Python." >&2
  rm -f "$into"/penstock_native.abi3.so
  exit 0
fi
if cargo build --quiet --release --locked --manifest-path native/Cargo.toml --target-dir .cache/native; then
  for built in .cache/native/release/libpenstock_native.so .cache/native/release/libpenstock_native.dylib; do
    # Moved, not written over: a process that has it loaded keeps the old one.
    [ -f "$built" ] && cp "$built" "$into/.penstock_native.new" && mv "$into/.penstock_native.new" "$into/penstock_native.abi3.so"
  done
  .venv/bin/python -c 'import penstock_native'
else
  echo "penstock-native did not build: the fold stays in Python." >&2
  rm -f "$into"/penstock_native.abi3.so
fi
