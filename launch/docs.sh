#!/usr/bin/env bash
# Builds the site from docs/ into docs/_build; arguments go to sphinx-build. Warnings are errors.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh" "[docs]"
# Fresh: pages made of code do not change when it does.
python -m sphinx --builder html --fail-on-warning --fresh-env --quiet "$@" docs docs/_build
echo "built: docs/_build/index.html"
