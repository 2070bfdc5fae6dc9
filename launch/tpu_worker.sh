#!/usr/bin/env bash
# What tpu_vm.sh starts on each worker of a slice: tpu_worker.sh NAME BUCKET EXPERIMENT FLAGS...
# Leaves the exit status in NAME.status. The first worker alone has a run folder; it brings it from
# the bucket, and copies it there each minute. A copy may be torn where a checkpoint is being
# written: a run that goes on knows it by its digests, and takes the one before.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
name=$1 bucket=$2
shift 2
status=1
trap 'echo "$status" > "$name.status"' EXIT

metadata() {
  curl -sf -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

number=$(metadata agent-worker-number) || { echo "error: this is no TPU worker" >&2; exit 1; }
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
copying=
if [ -n "$bucket" ] && [ "$number" = 0 ]; then
  # A bucket that does not answer is not an empty one, and what is in it must not be written over.
  if said=$(gcloud storage ls "$bucket/$name" 2>&1); then
    mkdir -p "$folder"
    gcloud storage rsync --recursive "$bucket/$name" "$folder" || exit 1
  elif [[ $said != *"matched no objects"* ]]; then
    echo "error: $said" >&2
    exit 1
  fi
  while sleep 60; do if [ -d "$folder" ]; then keep; fi; done &
  copying=$!
fi
.venv/bin/python -m "$@" --workdir="$folder" "${together[@]}"
status=$?
if [ -n "$copying" ]; then
  pkill -P "$copying"
  kill "$copying"
  wait "$copying"
  if ! keep; then
    echo "error: the run folder did not get to $bucket/$name: it is in ~/jaxdl/$folder" >&2
    [ "$status" != 0 ] || status=1
  fi
fi
exit "$status"
