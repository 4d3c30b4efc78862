"""The process's own streams and memory, in processes of their own."""

import platform
import subprocess
import sys

import pytest
from tiny import process_env

from anigan_jax.runtime import environment

# The second words pass by the stream: they come first where that one waits.
WRITES = """
import os, sys
from anigan_jax.runtime import stdio
stdio.prepare()
print("stream")
os.write(1, b"direct ")
"""


@pytest.mark.parametrize(
    ("flags", "environment", "at_once"),
    [
        ((), {}, False),
        (("-u",), {}, True),
        ((), {"PYTHONUNBUFFERED": "1"}, True),
        # Python's own UTF-8 mode.
        (("-u",), {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}, True),
    ],
)
def test_output_to_a_pipe_waits_unless_it_is_asked_not_to(flags, environment, at_once):
    kept = {k: v for k, v in process_env().items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, *flags, "-c", WRITES],
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("stream\ndirect " if at_once else "direct stream\n")


# Allocates and frees 100 MB time after time, as dispatches do; counts the page faults.
FAULTS = """
import ctypes, resource
from anigan_jax.runtime import environment
environment.retain_host_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def use():
    block = libc.malloc(100 << 20)
    ctypes.memset(block, 1, 100 << 20)
    libc.free(block)

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
CHOICES = (
    {},
    {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
    {"MALLOC_TRIM_THRESHOLD_": "100000"},
)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these are settings of glibc")
@pytest.mark.parametrize("chosen", CHOICES)
def test_freed_memory_is_retained_unless_the_user_chose_otherwise(chosen):
    ours = ("GLIBC_TUNABLES", *environment.RETAINING)
    env = {k: v for k, v in process_env().items() if k not in ours}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=env | chosen, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # A large page of 2 MB is one fault, 512 otherwise.
    assert (int(done.stdout) < 50) == (not chosen)


def test_memory_given_back_is_the_systems():
    """Freed memory below a block in use stays with the process until then."""
    code = """
import ctypes
from anigan_jax.runtime import environment

def resident():
    line = next(x for x in open("/proc/self/status") if x.startswith("VmRSS"))
    return int(line.split()[1]) // 1024

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(100_000) for _ in range(2000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
top = libc.malloc(100_000)
for block in blocks:
    libc.free(block)
held = resident()
environment.release_host_memory()
print(held - resident())
"""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("memory is given back by glibc's malloc_trim")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 150 < int(done.stdout) < 250
