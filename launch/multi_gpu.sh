#!/usr/bin/env bash
# One run on all GPUs of this machine, as one process: the simplest way, and the one to prefer
# on a single machine. No ports are opened, one copy of the data is held, and a signal or a
# crash concerns one process. Take local_multiprocess.sh where one process cannot feed the GPUs.
#
#   bash launch/multi_gpu.sh CONFIG --workdir RUN [overrides]
#
# CUDA_VISIBLE_DEVICES=0,1 or --run.devices 2 takes fewer GPUs; their number must divide the
# batch. The same command resumes.
set -euo pipefail
[[ " $* " =~ \ --run\.platform[\ =] ]] || set -- "$@" --run.platform gpu
exec anigan train "$@"
