"""Four simulated CPU devices for every test; must run before JAX starts."""

import os

import pytest

from anigan_jax import cli, runtime

os.environ["NPROC"] = "16"
runtime.prepare("cpu", devices=4)


@pytest.fixture
def verb(capsys):
    """Runs a verb here, which is quicker than a process: (exit code, stdout, stderr)."""

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            cli.main(list(map(str, args)))
        out = capsys.readouterr()
        return stop.value.code, out.out, out.err

    return run
