#!/usr/bin/env bash
# Trains a narrow DCGAN on painted faces in a few minutes; arguments are overrides.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" ""
anigan train quickstart --workdir "${RUN:-runs/quickstart}" "$@"
echo "(first, in a new shell: source .venv/bin/activate)"
