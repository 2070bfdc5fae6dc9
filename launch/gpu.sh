#!/usr/bin/env bash
# Runs an experiment on all GPUs of this machine, with one process per GPU:
#   launch/gpu.sh experiments.cifar_vgg --workdir=runs/vgg --batch_size=1024
# Without this script one process uses all GPUs: python -m experiments.cifar_vgg. With one process
# per GPU, each has its own host work; the result is the same. Ctrl-C, SIGTERM and the SIGHUP of a
# closed terminal are passed to all processes.
# CUDA_VISIBLE_DEVICES=0,2 selects GPUs.
set -euo pipefail
[ $# -ge 1 ] || { echo "error: give an experiment: launch/gpu.sh experiments.NAME" >&2; exit 2; }
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
  IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
else
  count=$(nvidia-smi -L | grep -c '^GPU ') || { echo "error: nvidia-smi lists no GPU: check the driver, or set CUDA_VISIBLE_DEVICES" >&2; exit 2; }
  mapfile -t gpus < <(seq 0 $((count - 1)))
fi
if [ ${#gpus[@]} -lt 2 ]; then exec python -m "$@"; fi
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
pids=()
stop=
pass() {
  stop=$1
  if [ ${#pids[@]} -gt 0 ]; then kill -s "$1" "${pids[@]}" 2> /dev/null || true; fi
}
trap 'pass TERM' TERM
trap 'pass HUP' HUP
trap 'pass INT' INT
for number in "${!gpus[@]}"; do
  # Each process has its own session; otherwise Ctrl-C in a terminal would arrive twice.
  CUDA_VISIBLE_DEVICES=${gpus[number]} setsid python -m "$@" --coordinator="localhost:$port" \
    --num_processes=${#gpus[@]} --process_id="$number" &
  pids+=($!)
done
if [ -n "$stop" ]; then pass "$stop"; fi # a signal may have come during the loop
status=0
for pid in "${pids[@]}"; do
  # A signal ends `wait` early, while the process still writes its checkpoint.
  while true; do
    code=0
    wait "$pid" || code=$?
    kill -0 "$pid" 2> /dev/null || break
  done
  [ "$status" != 0 ] || status=$code
done
exit "$status"
