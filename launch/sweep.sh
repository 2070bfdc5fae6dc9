#!/usr/bin/env bash
# Many runs from one line; started again, it goes on with what is left:
#   launch/sweep.sh experiments.mnist_lenet --learning_rate=0.1,0.03,0.01 --seed=0..4 --jobs=2
# Options and what the lists may say: python -m jaxdl sweep --help
set -euo pipefail
exec python -m jaxdl sweep "$@"
