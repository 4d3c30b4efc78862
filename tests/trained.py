"""Runs of tiny configs that many tests look at, each trained once in a session.

A pytest plugin, loaded by tests/conftest.py. What a test writes into, it copies first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import processes
import pytest
from tiny import anigan, write_config


class Trained(NamedTuple):
    """`config` is its file, `said` what the training printed."""

    config: Path
    run: Path
    said: str

    def copy(self, to: Path) -> Trained:
        """The same run in another folder, to write into."""
        return self._replace(run=Path(shutil.copytree(self.run, to)))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(name in tiny, *arguments of `train`) -> its `Trained`, by a process on one device.

    Workers of pytest-xdist share them: the first who asks trains, the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def run(name: str, *options) -> Trained:
        words = [name, *map(str, options)]
        digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]
        folder = base / "trained" / f"{name}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        said = folder / "said"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not said.exists():
                shutil.rmtree(folder / "run", ignore_errors=True)
                config = write_config(folder, name)
                done = anigan("train", config, "--workdir", folder / "run", *options)
                assert done.returncode == 0, done.stderr
                said.write_text(done.stdout)
        return Trained(folder / "tiny_config.py", folder / "run", said.read_text())

    return run


@pytest.fixture(autouse=True)
def no_process_left():
    """Ends what a failed test has left behind, at once, with all that it started."""
    yield
    processes.end_all()
