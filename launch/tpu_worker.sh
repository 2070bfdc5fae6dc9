#!/usr/bin/env bash
# Runs an experiment on a worker of a slice; tpu_vm.sh starts it on each worker:
#   tpu_worker.sh NAME BUCKET EXPERIMENT FLAGS...
# Writes the exit status to NAME.status. Only the first worker has a run folder. It fetches the
# folder from the bucket, and copies it back each minute. The copy of a checkpoint that is being
# written may be incomplete; a resumed run detects that by its digests and uses the previous one.
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

number=$(metadata agent-worker-number) || { echo "error: this is not a TPU worker" >&2; exit 1; }
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
  # Tell a bucket that cannot be read from an empty one, so that its content is not overwritten.
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
    echo "error: the run folder was not copied to $bucket/$name: it is in ~/jaxdl/$folder" >&2
    [ "$status" != 0 ] || status=1
  fi
fi
exit "$status"
