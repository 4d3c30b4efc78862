"""A run that nothing disturbed, which one that was disturbed must equal in the end.

A pytest plugin, loaded by tests/conftest.py.
"""

import shutil
import subprocess
import sys

import pytest
from processes import (
    Training,
)

STEPS = 96
OFTEN = ("--run.checkpoint-every", 8, "--run.sample-every", 32)
LENGTH = ("--run.steps", STEPS, *OFTEN)


def train(config, run, *more):
    return "train", config, "--workdir", run, *LENGTH, *more


def resumed(config, run, *more) -> Training:
    training = Training(run.parent / "resumed.log", *train(config, run, *more))
    assert training.ended() == 0, training.said()
    return training


@pytest.fixture(scope="module")
def whole(trained):
    """A config file and a run that nothing disturbed."""
    config, run, _ = trained("FULL", *LENGTH)
    return config, run


def argv(args):
    return [sys.executable, "-m", "anigan_jax", *map(str, args)]


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int fsync(int fd) {
  if (access(getenv("BREAK_FSYNC"), F_OK) == 0) { errno = EIO; return -1; }
  FILE *slow = getenv("SLOW_FSYNC") ? fopen(getenv("SLOW_FSYNC"), "r") : NULL;
  int milliseconds = 0;
  if (slow) {
    if (fscanf(slow, "%d", &milliseconds) == 1) usleep(milliseconds * 1000);
    fclose(slow);
  }
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library that makes fsync fail, or wait for milliseconds that a file tells."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    built = folder / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, folder / "shim.c", "-ldl"], check=True)
    return built
