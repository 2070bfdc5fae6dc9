#!/usr/bin/env bash
# Runs an experiment on a TPU slice of Google Cloud, from this machine:
#
#   export ZONE=us-central2-b TYPE=v4-16 VERSION=tpu-ubuntu2204-base SPOT=1 BUCKET=gs://mine/runs
#   launch/tpu_vm.sh create NAME                                  # waits until the slice is active
#   launch/tpu_vm.sh setup  NAME                                  # installs code on all workers
#   launch/tpu_vm.sh run    NAME experiments.cifar_vgg --batch_size=1024
#   launch/tpu_vm.sh logs   NAME;  launch/tpu_vm.sh stop NAME;  launch/tpu_vm.sh delete NAME
#
# `run` starts the experiment on every worker and waits for its end. If it is running already, `run`
# only waits. If the slice is preempted, `run` requests it again, sets it up, and resumes from the
# last checkpoint in BUCKET. `stop` ends the run with a checkpoint. --dry_run before the command
# prints the gcloud commands without running them.
#
# ZONE, TYPE and VERSION are those of `gcloud compute tpus queued-resources create`. Optional:
#   PROJECT   Google Cloud project (default: that of gcloud)
#   SPOT      1: use spot capacity, which is cheaper and may be preempted
#   BUCKET    destination of a copy of the run folder, updated each minute; without it, a run is lost
#             with its slice
#   REVISION  commit that the workers fetch from this repository's origin (default: HEAD);
#             rsync: copy the files of this working tree instead
#   POLL      seconds between two polls (default: 30)
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 2; }

dry=
if [ "${1:-}" = --dry_run ]; then dry=1; shift; fi
[ $# -ge 2 ] || fail "give a command and a name: launch/tpu_vm.sh create|setup|run|logs|stop|delete NAME"
command=$1 name=$2
shift 2
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || fail "$name: a TPU's name has only lowercase letters, digits and -"
[ -n "${ZONE:-}" ] || fail "set ZONE, such as us-central2-b"
if [ "$command" = run ]; then
  [[ "${1:-}" =~ ^[A-Za-z_] ]] || fail "give an experiment: launch/tpu_vm.sh run NAME experiments.cifar_vgg"
  [[ " $*" != *" --workdir"* ]] || fail "--workdir is always runs/$name on each worker: leave it out"
elif [ $# -gt 0 ]; then
  fail "$*: $command takes only a name (--dry_run goes before the command)"
fi
where=(--zone="$ZONE" ${PROJECT:+--project="$PROJECT"})
spot=()
if [ "${SPOT:-0}" = 1 ]; then spot=(--spot); fi
every=${POLL:-30}

tpus() {
  local words=(gcloud compute tpus "$@" "${where[@]}")
  if [ -n "$dry" ]; then printf '%s\n' "${words[*]@Q}" >&2; else "${words[@]}"; fi
}

on() { tpus tpu-vm ssh "$name" --worker="$1" --command="$2"; }

# Retries, because a slice that is active accepts ssh only some time later.
patiently() {
  local left
  for left in 4 3 2 1 0; do
    if "$@"; then return; fi
    [ "$left" = 0 ] || sleep "$every"
  done
  echo "error: $name does not accept a command: see above" >&2
  return 1
}

# Prints the state of the queued resource: GONE if there is none, UNKNOWN if the query failed.
state() {
  local said
  if said=$(tpus queued-resources describe "$name" --format='value(state.state)' 2>&1); then
    if [ -n "$dry" ]; then echo "$said" >&2; said=ACTIVE; fi
    echo "${said##*$'\n'}"
  elif [[ $said == *NOT_FOUND* ]]; then
    echo GONE
  else
    echo "$said" >&2
    echo UNKNOWN
  fi
}

create() {
  [ -n "${TYPE:-}" ] || fail "set TYPE, such as v4-16"
  [ -n "${VERSION:-}" ] || fail "set VERSION, such as tpu-ubuntu2204-base"
  tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$TYPE" \
    --runtime-version="$VERSION" "${spot[@]}"
  while true; do
    case $(state) in
      ACTIVE) return ;;
      FAILED | SUSPENDED | GONE) fail "$name was not created: delete it, and try another ZONE or time" ;;
    esac
    sleep "$every"
  done
}

setup() {
  local revision=${REVISION:-HEAD} install
  # The image's own Python is too old for the packages.
  install='python3 -m pip install -q --user uv && python3 -m uv venv -q --clear --python 3.12 .venv && '
  install+='python3 -m uv pip install -q --python .venv -e ".[tpu,grain]"'
  if [ "$revision" = rsync ]; then
    local archive
    archive=$(mktemp -t jaxdl-XXXXXX)
    # shellcheck disable=SC2064
    trap "rm -f '$archive'" EXIT
    git ls-files -z --cached --others --exclude-standard \
      | while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done \
      | tar --null -T - -czf "$archive"
    patiently tpus tpu-vm scp "$archive" "$name:jaxdl.tgz" --worker=all
    patiently on all "mkdir -p jaxdl && cd jaxdl && rm -rf jaxdl experiments launch && \
tar -xzf ../jaxdl.tgz && $install"
  else
    local commit origin
    commit=$(git rev-parse --quiet --verify "$revision^{commit}") || fail "REVISION=$revision is not a commit: name one, or set REVISION=rsync"
    origin=$(git remote get-url origin) || fail "this repository has no origin to fetch from: set REVISION=rsync"
    patiently on all "{ test -d jaxdl || git clone -q ${origin@Q} jaxdl; } && cd jaxdl && git fetch -q && \
git checkout -q --detach $commit && $install"
  fi
}

# Starts the experiment on each worker where it is not running already.
start() {
  local words=("$name" "${BUCKET:-}" "$@")
  patiently on all "cd jaxdl && { pgrep -f 'tpu_worker[.]sh $name ' > /dev/null || \
{ rm -f $name.status; nohup setsid launch/tpu_worker.sh ${words[*]@Q} > $name.log 2>&1 < /dev/null & }; }"
}

run() {
  local look status
  start "$@"
  while true; do
    sleep "$every"
    case $(state) in
      ACTIVE)
        # No answer means that the worker cannot be reached now. LOST means that its host restarted.
        # The status is read twice, because the run may end between the first read and pgrep.
        look="cat jaxdl/$name.status 2> /dev/null"
        status=$(on 0 "$look || pgrep -f 'tpu_worker[.]sh $name ' > /dev/null || $look || echo LOST") \
          || status=
        status=${status:-${dry:+0}}
        case $status in
          LOST) start "$@" ;;
          ?*) break ;;
        esac
        ;;
      FAILED | SUSPENDED | GONE)
        echo "$name was preempted: requesting it again" >&2
        tpus queued-resources delete "$name" --force --quiet || true
        create
        setup
        start "$@"
        ;;
    esac
  done
  on 0 "tail -n 20 jaxdl/$name.log"
  exit "$status"
}

case $command in
  create | setup | run) "$command" "$@" ;;
  logs) on 0 "tail -n 100 -f jaxdl/$name.log" ;;
  stop) on all "pkill -TERM -f -- '--workdir=runs/$name( |\$)' || true" ;;
  delete) tpus queued-resources delete "$name" --force --quiet ;;
  *) fail "$command: give create, setup, run, logs, stop or delete" ;;
esac
