#!/usr/bin/env bash
# One run on all workers of a Cloud TPU slice, from your own machine.
#
#   TPU=NAME ZONE=ZONE bash launch/tpu_pod.sh CONFIG --workdir RUN [overrides]
#   TPU=NAME ZONE=ZONE bash launch/tpu_pod.sh stop     all save and exit with 143
#
# Before: on every worker this repository in DIR (~/anigan_jax) with `pip install -e '.[tpu]'` in
# its .venv (Python 3.11 or newer, which the images of Ubuntu 22.04 lack), and the data at the same
# path. RUN is written by worker 0; on a mounted disk or Filestore it outlives the TPU, and on a
# bucket if that has a hierarchical namespace (gcsfuse renames no folders of others). The run goes on when the connection is lost; the same command then shows it
# again (and ends with 4, as it cannot know how the run ended), or resumes a run that has ended.
set -euo pipefail
: "${TPU:?is the name of the TPU}" "${ZONE:?is its zone}"
dir=${DIR:-anigan_jax}
(($#)) || {
  echo "usage: TPU=NAME ZONE=ZONE tpu_pod.sh CONFIG --workdir RUN [overrides], or stop" >&2
  exit 2
}
[[ " $* " =~ \ --distributed\  ]] || [ "$1" = stop ] || set -- "$@" --distributed
# After a restart the number may be another program's.
# shellcheck disable=SC2016  # expanded on the workers
running='pid=$(cat anigan.pid 2>/dev/null) && grep -qa bin/anigan "/proc/$pid/cmdline" 2>/dev/null'
if [ "$1" = stop ]; then
  # shellcheck disable=SC2016
  command="if $running"'; then kill -TERM "$pid"; else echo "no run here"; fi'
else
  # The process must not hang on this connection, so it writes to a file that is followed.
  # shellcheck disable=SC2016
  start="if $running"'; then
      echo "a run is under way here; its log:"
      tail --lines=+1 --follow --pid="$pid" anigan.log
      echo "it has ended; the same command resumes it where it is not complete"
      exit 4
    fi
    # Here, as it must be there for tail.
    : >anigan.log
    nohup .venv/bin/anigan train "$@" >>anigan.log 2>&1 </dev/null &
    pid=$!
    echo "$pid" >anigan.pid
    tail --lines=+1 --follow --pid="$pid" anigan.log &
    code=0
    wait "$pid" || code=$?
    wait
    exit "$code"'
  command="set -- $(printf '%q ' "$@"); $start"
fi
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="cd $(printf %q "$dir") && { $command; }"
