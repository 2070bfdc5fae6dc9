#!/usr/bin/env bash
# Formats, lints, type-checks, builds the documentation and tests. With CI=true it does not format,
# but fails on files that are not formatted. Arguments are passed to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${CI:-}" = true ]; then ruff format --check .; else ruff format .; fi
ruff check .
mypy
python -m sphinx -W --keep-going -q -b html docs docs/_build/html
python -m pytest --numprocesses=auto --dist=loadfile "$@"
