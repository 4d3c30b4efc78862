#!/usr/bin/env bash
# Trains a narrow DCGAN on painted faces in a few minutes; arguments are overrides.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" ""
[[ " $* " =~ \ --workdir[\ =] ]] || set -- --workdir "${RUN:-runs/quickstart}" "$@"
anigan train quickstart "$@"
echo "(first, in a new shell: source .venv/bin/activate)"
