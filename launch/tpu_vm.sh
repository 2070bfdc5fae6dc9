#!/usr/bin/env bash
# A run on a TPU slice of Google Cloud, from this machine:
#
#   export ZONE=us-central2-b TYPE=v4-16 VERSION=tpu-ubuntu2204-base SPOT=1 BUCKET=gs://mine/runs
#   launch/tpu_vm.sh create NAME                                  # waits until it is there
#   launch/tpu_vm.sh setup  NAME                                  # code and packages, on all workers
#   launch/tpu_vm.sh run    NAME experiments.cifar_vgg --batch_size=1024
#   launch/tpu_vm.sh logs   NAME;  launch/tpu_vm.sh stop NAME;  launch/tpu_vm.sh delete NAME
#
# `run` starts the experiment on every worker and waits for its end. A slice that is taken away is
# asked for again, set up, and goes on from the last checkpoint, which BUCKET keeps. `stop` lets it
# make a checkpoint. --dry_run before the command prints what gcloud would be told, and does nothing.
#
# ZONE, TYPE and VERSION are as `gcloud compute tpus queued-resources create` has them. Optional:
#   PROJECT   default: gcloud's own
#   SPOT      1: cheaper, and may be taken away
#   BUCKET    keeps the run folder, copied each minute; without it a slice takes its run with it
#   REVISION  commit that the workers fetch from this repository's origin (default: HEAD);
#             rsync: the files as they are here instead
#   POLL      seconds between two looks (default: 30)
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 2; }

dry=
if [ "${1:-}" = --dry_run ]; then dry=1; shift; fi
[ $# -ge 2 ] || fail "give a command and a name: launch/tpu_vm.sh create|setup|run|logs|stop|delete NAME"
command=$1 name=$2
shift 2
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || fail "$name: a TPU's name has small letters, digits and -"
: "${ZONE:?set ZONE, such as us-central2-b}"
where=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"})
every=${POLL:-30}

tpus() {
  local words=(gcloud compute tpus "$@" "${where[@]}")
  if [ -n "$dry" ]; then printf '%s\n' "${words[*]@Q}" >&2; else "${words[@]}"; fi
}

on() { tpus tpu-vm ssh "$name" --worker="$1" --command="$2"; }

state() {
  local found
  found=$(tpus queued-resources describe "$name" --format='value(state.state)') || found=GONE
  echo "${found:-${dry:+ACTIVE}}"
}

create() {
  : "${TYPE:?set TYPE, such as v4-16}" "${VERSION:?set VERSION, such as tpu-ubuntu2204-base}"
  tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$TYPE" \
    --runtime-version="$VERSION" ${SPOT:+--spot}
  while true; do
    case $(state) in
      ACTIVE) return ;;
      FAILED | SUSPENDED | GONE) fail "$name came to nothing: try another ZONE, or without SPOT" ;;
    esac
    sleep "$every"
  done
}

setup() {
  local revision=${REVISION:-} install
  install='python3 -m venv .venv && .venv/bin/pip install -q -e ".[tpu]"'
  if [ "$revision" = rsync ]; then
    local archive
    archive=$(mktemp -t jaxdl-XXXXXX.tgz)
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -czf "$archive"
    tpus tpu-vm scp "$archive" "$name:jaxdl.tgz" --worker=all
    rm "$archive"
    on all "mkdir -p jaxdl && tar -xzf jaxdl.tgz -C jaxdl && cd jaxdl && $install"
  else
    revision=$(git rev-parse --verify "${revision:-HEAD}^{commit}") || fail "$revision: no commit"
    local origin
    origin=$(git remote get-url origin) || fail "no origin to fetch from: set REVISION=rsync"
    on all "{ test -d jaxdl || git clone -q ${origin@Q} jaxdl; } && cd jaxdl && git fetch -q && \
git checkout -q --detach $revision && $install"
  fi
}

start() {
  local words=("$name" "${BUCKET:-}" "$@")
  on all "cd jaxdl && rm -f $name.status && \
{ nohup setsid launch/tpu_worker.sh ${words[*]@Q} > $name.log 2>&1 < /dev/null & }"
}

run() {
  local status
  start "$@"
  while true; do
    case $(state) in
      ACTIVE)
        status=$(on 0 "cat jaxdl/$name.status 2> /dev/null || true") || status=
        status=${status:-${dry:+0}}
        [ -z "$status" ] || break
        ;;
      FAILED | SUSPENDED | GONE)
        echo "$name was taken away: asking for it again" >&2
        tpus queued-resources delete "$name" --force --quiet || true
        create
        setup
        start "$@"
        ;;
    esac
    sleep "$every"
  done
  on 0 "tail -n 20 jaxdl/$name.log"
  exit "$status"
}

case $command in
  create | setup) "$command" ;;
  run)
    [ $# -ge 1 ] || fail "give an experiment: launch/tpu_vm.sh run NAME experiments.cifar_vgg --FLAGS"
    run "$@"
    ;;
  logs) on 0 "tail -n 100 -f jaxdl/$name.log" ;;
  stop) on all "pkill -TERM -f -- '--workdir=runs/$name( |\$)' || true" ;;
  delete) tpus queued-resources delete "$name" --force --quiet ;;
  *) fail "$command: give create, setup, run, logs, stop or delete" ;;
esac
