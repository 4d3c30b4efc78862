# shellcheck shell=bash
# Sourced by the other scripts: makes .venv once and installs the extras given in $1; with a lock
# file in $2, what it names and nothing else. PYTHON chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
lock=${2:-}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $python is older than Python 3.11; set PYTHON to a newer one" >&2
  exit 2
}
# Files for newer Pythons did not exist when the versions were chosen.
if [ -n "$lock" ] && ! "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 14))'; then
  echo "note: $lock is for Python 3.11 to 3.13; $1 is installed in today's versions"
  lock=
fi
stamp=".venv/.installed-$(cat pyproject.toml ${lock:+"$lock"} - <<<"$1" | cksum | tr ' ' '-')"
if [ ! -e "$stamp" ]; then
  echo "making .venv (a minute or two)"
  "$python" -m venv .venv
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
