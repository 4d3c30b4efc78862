#!/usr/bin/env bash
# Lints, checks types and runs all tests in an environment of its own; arguments go to pytest.
#   --quick   first: leaves out tests marked slow or long; what to run between edits
# With CI set, of the versions and hashes in requirements-test.lock.
set -euo pipefail
chosen=()
if [ "${1:-}" = --quick ]; then
  shift
  chosen=(-m "not slow and not long")
fi
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" "[test,tfds,docs]" \
  "${CI:+launch/requirements-test.lock}"
# The oracle: 2.13 is the release the tolerances were measured with. Never a GPU build.
python -c 'import torch' 2>/dev/null || python -m pip install --quiet torch==2.13.0 \
  || echo "no PyTorch here: the tests against it are skipped"
# The oracle of the metrics; of what it asks for, functions of arrays need only what is here.
python -c 'import importlib.metadata as m; m.version("torch-fidelity")' 2>/dev/null \
  || python -m pip install --quiet --no-deps torch-fidelity==0.4.0 \
  || echo "no torch-fidelity here: the tests against it are skipped"
# The oracle of ONNX files; its pin on orbax-checkpoint is older than ours, and does not matter here.
python -c 'import importlib.metadata as m; m.version("jax2onnx")' 2>/dev/null \
  || python -m pip install --quiet --no-deps jax2onnx==0.17.1 onnx-ir==1.1.0 \
  || echo "no jax2onnx here: the test against it is skipped"
# Pages are looked at in a browser.
command -v chromedriver >/dev/null || {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q >/dev/null \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q chromium chromium-driver >/dev/null
} || echo "no Chromium here: the tests in it are skipped"
# Saves are recorded, call by call.
command -v strace >/dev/null || {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q strace >/dev/null
} || echo "no strace here: the tests that replay a save are skipped"
ruff check .
ruff format --check .
mypy
# What a file's tests share is made once; conftest.py puts the longest files first. Two workers want
# two cores (a third gains nothing), and no threads of PyTorch's or BLAS's beside them.
export OMP_NUM_THREADS=1
exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder ${chosen[@]+"${chosen[@]}"} "$@"
