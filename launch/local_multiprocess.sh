#!/usr/bin/env bash
# One run as N processes of this machine: to try a cluster without one, or one process per GPU.
#
#   bash launch/local_multiprocess.sh N CONFIG --workdir RUN [overrides]
#
# With an NVIDIA driver each process gets one GPU (of CUDA_VISIBLE_DEVICES, where it is set).
# Otherwise, with --run.platform cpu or with PROCESS_DEVICES=K, each simulates K devices on the
# CPU (1).
# The exit code is that of the first process that failed. TERM and INT go to all processes; once
# one has failed, those that have not ended after GRACE seconds (300) are killed. RESTARTS=K starts
# all again, K times at most, where the same command resumes: after the exit codes 4 and 143 and
# where a process was killed, but not after a TERM or INT of one's own.
set -euo pipefail
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || (($# < 2)); then
  echo "usage: local_multiprocess.sh N CONFIG --workdir RUN [overrides]" >&2
  exit 2
fi
n=$1
shift
command -v anigan >/dev/null || {
  echo "error: anigan is not in PATH; activate its environment first" >&2
  exit 2
}

gpus=()
if [ -z "${PROCESS_DEVICES:-}" ] && ! [[ " $* " =~ \ --run\.platform[\ =]cpu\  ]] \
  && command -v nvidia-smi >/dev/null; then
  all=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd, -) || {
    echo "error: nvidia-smi fails (${all:-it says nothing}); PROCESS_DEVICES=1 takes the CPU" >&2
    exit 2
  }
  # Set but empty, it hides all.
  IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-$all}"
fi
platform=cpu devices=$((n * ${PROCESS_DEVICES:-1}))
if ((${#gpus[@]})); then
  ((n <= ${#gpus[@]})) || {
    echo "error: $n processes, but ${#gpus[@]} GPU(s); PROCESS_DEVICES=1 takes the CPU" >&2
    exit 2
  }
  # The only one that a process sees, whatever JAX finds out about a cluster around it.
  export JAX_LOCAL_DEVICE_IDS=0
  platform=gpu devices=$n
fi
[[ " $* " =~ \ --run\.platform[\ =] ]] || set -- "$@" --run.platform "$platform"
[[ " $* " =~ \ --run\.devices[\ =] ]] || set -- "$@" --run.devices "$devices"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$n
pids=()
running=()
# That there is nobody left to signal is no error.
# shellcheck disable=SC2329  # called by the traps
to_running() {
  local rank
  for rank in "${running[@]}"; do kill "-$1" "${pids[rank]}" 2>/dev/null || true; done
}
to_groups() {
  local pid
  found=0
  for pid in "${pids[@]}"; do ! kill "-$1" -- "-$pid" 2>/dev/null || found=1; done
}
asked=0
trap 'asked=1; to_running TERM' TERM
trap 'asked=1; to_running INT' INT
trap 'to_groups KILL' EXIT

# Job control: each process leads a group, so that all it starts can be found; and bash would
# start it with INT ignored otherwise.
set -m
for ((rank = 0; rank < n; rank++)); do
  ((${#gpus[@]} == 0)) || export CUDA_VISIBLE_DEVICES=${gpus[rank]}
  # sed outlives a signal to its group: the last lines of a process are the ones that matter.
  JAX_PROCESS_ID=$rank anigan train "$@" </dev/null \
    > >(trap '' TERM INT && exec sed -u "s/^/[$rank] /") 2>&1 &
  pids+=($!)
  running+=("$rank")
done
set +m

code=0
while ((${#running[@]})); do
  # Ctrl-C ends the sleep as well.
  sleep 0.2 || true
  left=()
  for rank in "${running[@]}"; do
    # Bash has reaped a process that is gone, and keeps its status for `wait`.
    if kill -0 "${pids[rank]}" 2>/dev/null; then
      left+=("$rank")
      continue
    fi
    status=0
    wait "${pids[rank]}" || status=$?
    if ((status && !code)); then
      code=$status
      deadline=$((SECONDS + ${GRACE:-300}))
      echo "process $rank ended with exit code $status" >&2
    fi
  done
  running=(${left[@]+"${left[@]}"})
  if ((code && ${#running[@]} && SECONDS >= deadline)); then
    echo "killed, as they did not end: ${running[*]}" >&2
    to_groups KILL
  fi
done
# The last prefixed lines may still be on their way; what else is left is killed.
for ((i = 0; i < 20; i++)); do
  to_groups 0
  ((found)) || break
  sleep 0.1 || true
done
case $code in
  4 | 134 | 137 | 139 | 143)
    if ((!asked && ${RESTARTS:-0} > 0)); then
      ((${#gpus[@]} == 0)) || CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${gpus[*]}")
      export RESTARTS=$((RESTARTS - 1))
      echo "again, as the same command resumes; $RESTARTS more" >&2
      # In place of this shell, whose trap on EXIT does not run then.
      to_groups KILL
      exec bash "$0" "$n" "$@"
    fi
    ;;
esac
exit "$code"
