#!/usr/bin/env bash
# Trains a narrow DCGAN on painted faces in a few minutes; arguments are overrides.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" ""
exec anigan train quickstart --workdir "${RUN:-runs/quickstart}" "$@"
