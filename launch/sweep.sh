#!/usr/bin/env bash
# Runs many trials from one command; started again, it continues with the remaining ones:
#   launch/sweep.sh experiments.mnist_lenet --learning_rate=0.1,0.03,0.01 --seed=0..4 --jobs=2
# Options, and the syntax of lists of values: python -m jaxdl sweep --help
set -euo pipefail
exec python -m jaxdl sweep "$@"
