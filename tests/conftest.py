"""Four simulated CPU devices for every test; must run before JAX starts."""

import gc
import os
import time
from pathlib import Path
from unittest import mock

import jax
import pytest
import tiny

from anigan_jax.cli import main
from anigan_jax.runtime import environment

pytest_plugins = ["faults.table", "trained", "faults.undisturbed", "launchers"]

os.environ["NPROC"] = "16"
# What one process has compiled no other compiles again, however small: they are many.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ |= tiny.QUICK_COMPILE
environment.prepare("cpu", devices=4)
# The imports above bring JAX, which has read its environment by then.
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_disable_most_optimizations", True)

# Traces are millions of small objects that nothing collects: a twentieth of the time.
gc.set_threshold(100_000, 50, 50)

# Files that take longest come first, so that the workers end together.
LONGEST = [
    "test_golden",
    "test_docs",
    "test_cluster",
    "test_exact",
    "test_checkpoints",
    "test_signals",
    "test_environment",
    "test_bench",
    "test_wheel",
    "test_export",
    "test_transfer",
    "test_r3gan",
    "test_text_learning",
    "test_runs",
    "test_disks",
    "test_cartoongan",
    "test_cyclegan",
    "test_text_gan",
    "test_speed",
    "test_features",
    "test_cartoongan_phases",
    "test_sweep",
]

MAPS = Path("/proc/self/maps")
MANY_MAPS = 25_000
_LOOKED = {"at": 0.0}


def pytest_collection_modifyitems(items):
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(autouse=True)
def few_memory_maps():
    """Frees compiled code after a test, before there is too much of it.

    Each executable is some hundred memory maps; at 65,530, Linux's usual limit of a process,
    loading the next one is a segmentation fault. Looked at once in a second of tests: reading the
    maps takes as long as a short test.
    """
    yield
    if time.monotonic() < _LOOKED["at"] + 1:
        return
    _LOOKED["at"] = time.monotonic()
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def optimized(monkeypatch):
    """Has processes compile as users' do."""
    for name in tiny.QUICK_COMPILE:
        monkeypatch.delenv(name)


@pytest.fixture
def verb(capsys):
    """Runs a verb here, which is quicker than a process: (exit code, stdout, stderr)."""

    def run(*args):
        # A verb sets the environment that its process computes in.
        with mock.patch.dict(os.environ), pytest.raises(SystemExit) as stop:
            main.main(list(map(str, args)))
        out = capsys.readouterr()
        return stop.value.code, out.out, out.err

    return run
