# Sourced by the other scripts: makes .venv once and installs the extras given in $1.
# PYTHON chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $python is older than Python 3.11; set PYTHON to a newer one" >&2
  exit 2
}
stamp=".venv/.installed-$(cat pyproject.toml - <<<"$1" | cksum | tr ' ' '-')"
if [ ! -e "$stamp" ]; then
  echo "making .venv (a minute or two)"
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --upgrade pip
  .venv/bin/python -m pip install --quiet --editable ".$1"
  touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
