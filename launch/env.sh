# shellcheck shell=bash
# Sourced by the other scripts: makes .venv once and installs the extras given in $1; with a lock
# file in $2, what it names and nothing else. Of the Pythons from 3.11 to 3.14 (3.13 with the lock
# file) it takes PYTHON, or that of .venv, or the newest that there is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lock=${2:-}
# Files for newer Pythons did not exist when the versions in the lock file were chosen.
newest=${lock:+13}
newest=${newest:-14}
names=(.venv/bin/python python3.14 python3.13 python3.12 python3.11 python3)
[ -z "${PYTHON:-}" ] || names=("$PYTHON")
python=
for name in "${names[@]}"; do
  # A name in PATH may be pyenv's for a version that is not active, or lack Debian's venv package.
  if "$name" -c "import ensurepip, sys
sys.exit(not (3, 11) <= sys.version_info < (3, $newest + 1))" 2>/dev/null; then
    python=$name
    break
  fi
done
[ -n "$python" ] || {
  echo "error: ${PYTHON:-python3} is not a Python from 3.11 to 3.$newest${lock:+, which $lock is for,}" \
    "that runs and has venv; install one, or set PYTHON to its name" >&2
  exit 2
}
version=$("$python" -V)
stamp=".venv/.installed-$(cat pyproject.toml ${lock:+"$lock"} - <<<"$1 $version" | cksum | tr ' ' '-')"
if [ ! -e "$stamp" ]; then
  echo "making .venv with $version ($(command -v "$python")); this takes a minute or two"
  [ "$python" = .venv/bin/python ] || "$python" -m venv --clear .venv
  # One that uv has made comes without.
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
  install=(.venv/bin/python -m pip install --quiet)
  if [ -n "$lock" ]; then
    # Setuptools first: packages that come as source are built with it, not with today's.
    sed -n '/^setuptools==/,/[^\\]$/p' "$lock" >.venv/setuptools.lock
    "${install[@]}" --require-hashes --requirement .venv/setuptools.lock
    "${install[@]}" --require-hashes --no-build-isolation --requirement "$lock"
    "${install[@]}" --no-deps --no-build-isolation --editable .
  else
    "${install[@]}" --upgrade pip
    "${install[@]}" --editable ".$1"
  fi
  touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
