"""The environment that the launchers make, and the quickstart in it."""

import os
import shutil
import subprocess
import sys

import pytest
from launchers import ANIGAN, LAUNCH, ROOT, put, told


@pytest.mark.parametrize("given", [[], ["--workdir", "my run"], ["--workdir=my run"]])
def test_the_quickstart_has_a_folder_of_its_own(tmp_path, given):
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "env.sh").write_text("")
    put(tmp_path / "bin", "anigan", ANIGAN.format(python=sys.executable))
    done = subprocess.run(
        ["bash", str(tmp_path / "launch" / "quickstart.sh"), *given],
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RUN": "another"},
        capture_output=True,
        text=True,
    )
    (said,) = told(done.stdout).values()
    assert said["argv"] == ["train", "quickstart", *(given or ["--workdir", "another"])]


# Knows its version, makes environments of itself, and installs nothing.
PYTHON = """#!/bin/sh
case "$*" in
  -V) echo "Python 3.{minor}.1" ;;
  -c*) exec {python} - "$2" <<'END'
import sys
sys.version_info = (3, {minor}, 1)
exec(sys.argv[1])
END
  ;;
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""
PYENV = "#!/bin/sh\necho 'pyenv: $0: command not found' >&2\nexit 127\n"


@pytest.fixture
def env_sh(tmp_path):
    """Sources env.sh where `python3.MINOR` exists for each of `minors`; gives code and output."""
    (tmp_path / "launch").mkdir()
    for name in ("launch/env.sh", "launch/requirements-test.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("bash", "cat", "cksum", "cp", "dirname", "mkdir", "sed", "touch", "tr"):
        put(tmp_path / "bin", name, f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n')

    def source(minors=(), plain=None, lock="", python=""):
        for minor in minors:
            text = PYTHON.format(python=sys.executable, minor=minor)
            put(tmp_path / "bin", f"python3.{minor}", text)
        if plain:
            put(tmp_path / "bin", "python3", PYTHON.format(python=sys.executable, minor=plain))
        done = subprocess.run(
            ["bash", "-c", f"source launch/env.sh '' {lock}"],
            env={"PATH": str(tmp_path / "bin"), "PYTHON": python},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.returncode, done.stdout + done.stderr

    source.bin = tmp_path / "bin"
    return source


LOCK = "launch/requirements-test.lock"


@pytest.mark.parametrize(
    ("minors", "plain", "lock", "taken"),
    [
        ((11, 13, 14), 12, "", "3.14.1"),
        # The lock file has no files for 3.14.
        ((11, 13, 14), 14, LOCK, "3.13.1"),
        ((9, 10), 11, "", "3.11.1"),
        ((), 14, "", "3.14.1"),
    ],
)
def test_the_newest_python_that_fits_is_taken(env_sh, minors, plain, lock, taken):
    code, output = env_sh(minors, plain, lock)
    assert code == 0, output
    assert f"making .venv with Python {taken} (" in output


def test_a_python_that_does_not_run_is_passed_over(env_sh):
    put(env_sh.bin, "python3.13", PYENV)
    code, output = env_sh((), 11)
    assert code == 0, output
    assert "Python 3.11.1" in output
    assert "pyenv" not in output


def test_an_environment_keeps_its_python_until_another_is_named(env_sh):
    assert "Python 3.11.1" in env_sh((11,))[1]
    assert env_sh((12, 13)) == (0, "")
    assert "Python 3.12.1" in env_sh(python="python3.12")[1]
    assert env_sh() == (0, "")


@pytest.mark.parametrize(
    ("python", "plain", "lock"),
    [("", 10, ""), ("", 15, ""), ("", None, ""), ("python3", 10, ""), ("python3", 14, LOCK)],
)
def test_no_python_that_fits_is_an_error(env_sh, python, plain, lock):
    code, output = env_sh((), plain, lock, python)
    assert code == 2
    assert f"error: python3 is not a Python from 3.11 to 3.{13 if lock else 14}" in output
    assert (LOCK in output) == bool(lock)
