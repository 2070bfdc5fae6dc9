#!/usr/bin/env bash
# What tpu_vm.sh starts on each worker of a slice: tpu_worker.sh NAME BUCKET EXPERIMENT FLAGS...
# Leaves the exit status in NAME.status. The first worker alone has a run folder; it brings it from
# the bucket, and copies it there each minute. A copy may be torn where a checkpoint is being
# written: a run that goes on knows it by its digests, and takes the one before.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
name=$1 bucket=$2
shift 2

metadata() {
  curl -sf -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

number=$(metadata agent-worker-number)
IFS=, read -ra workers <<< "$(metadata worker-network-endpoints)" # each ID:PORT:ADDRESS
together=()
if [ ${#workers[@]} -gt 1 ]; then
  together=(
    --coordinator="${workers[0]##*:}:8476" --num_processes=${#workers[@]} --process_id="$number"
  )
fi
folder=runs/$name
keep() {
  gcloud storage rsync --recursive --delete-unmatched-destination-objects "$folder" "$bucket/$name"
}
if [ -n "$bucket" ] && [ "$number" = 0 ]; then
  mkdir -p "$folder"
  if gcloud storage ls "$bucket/$name" > /dev/null 2>&1; then
    gcloud storage rsync --recursive "$bucket/$name" "$folder" || exit 1
  fi
  while sleep 60; do keep; done &
  copying=$!
fi
.venv/bin/python -m "$@" --workdir="$folder" "${together[@]}"
status=$?
if [ -n "${copying:-}" ]; then
  kill "$copying"
  keep
fi
echo "$status" > "$name.status"
exit "$status"
