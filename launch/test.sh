#!/usr/bin/env bash
# Lints and runs all tests in an environment of its own; arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" "[test,tfds]"
# The oracle: 2.13 is the release the tolerances were measured with. Never a GPU build.
python -c 'import torch' 2>/dev/null || python -m pip install --quiet torch==2.13.0 \
  || echo "no PyTorch here: the tests against it are skipped"
# The oracle of the metrics; of what it asks for, functions of arrays need only what is here.
python -c 'import importlib.metadata as m; m.version("torch-fidelity")' 2>/dev/null \
  || python -m pip install --quiet --no-deps torch-fidelity==0.4.0 \
  || echo "no torch-fidelity here: the tests against it are skipped"
# Pages are looked at in a browser.
command -v chromedriver >/dev/null || {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q >/dev/null \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q chromium chromium-driver >/dev/null
} || echo "no Chromium here: the tests in it are skipped"
ruff check .
ruff format --check .
exec python -m pytest -n 2 "$@"
