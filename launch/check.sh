#!/usr/bin/env bash
# Formats, lints, type-checks, builds the documentation and tests. Under CI=true it changes no file,
# but fails where it would.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${CI:-}" = true ]; then ruff format --check .; else ruff format .; fi
ruff check .
mypy
python -m sphinx -W --keep-going -q -b html docs docs/_build/html
python -m pytest --numprocesses=auto --dist=loadfile "$@"
