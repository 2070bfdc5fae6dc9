#!/usr/bin/env bash
# Formats, lints, type-checks and tests. Under CI=true it changes no file, but fails where it would.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${CI:-}" = true ]; then ruff format --check .; else ruff format .; fi
ruff check .
mypy
python -m pytest --numprocesses=auto --dist=loadfile "$@"
