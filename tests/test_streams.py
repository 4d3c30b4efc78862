"""The process's own streams, in processes: what is asked of Python holds for them too."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import process_env

# The second words pass by the stream: they come first where that one waits.
WRITES = """
import os, sys
from anigan_jax import streams
streams.prepare()
print("stream")
os.write(1, b"direct ")
"""


@pytest.mark.parametrize(
    ("flags", "environment", "at_once"),
    [
        ((), {}, False),
        (("-u",), {}, True),
        ((), {"PYTHONUNBUFFERED": "1"}, True),
        # It starts itself anew there.
        (("-u", "-X", "utf8=0"), {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}, True),
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


SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ON_REQUEST = SYSTEM.exists() and "[madvise]" in SYSTEM.read_text()
NEEDED = ON_REQUEST and platform.libc_ver()[0] == "glibc"
LARGE = "glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("trains", "before", "after"),
    [
        (True, "", LARGE if NEEDED else ""),
        (True, "glibc.malloc.perturb=0", f"glibc.malloc.perturb=0{f':{LARGE}' * NEEDED}"),
        # A user's own choice stays.
        (True, "glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
        (False, "", ""),
    ],
)
def test_a_training_asks_for_large_pages_where_it_must(trains, before, after):
    """It starts anew once, with the same arguments, in the same process."""
    code = (
        "import os, sys; from anigan_jax import streams; start = os.environ.setdefault('PID', "
        f"str(os.getpid())); streams.prepare({trains}); "
        "print(os.environ.get('GLIBC_TUNABLES', ''), start == str(os.getpid()), *sys.argv[1:])"
    )
    env = {**process_env(), "GLIBC_TUNABLES": before}
    done = subprocess.run(
        [sys.executable, "-c", code, "a b", "c"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{after} True a b c\n"


def test_memory_given_back_is_the_systems():
    """Freed memory below a block in use stays with the process until then."""
    code = """
import ctypes
from anigan_jax import runtime

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
runtime.release_host_memory()
print(held - resident())
"""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("memory is given back by glibc's malloc_trim")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 150 < int(done.stdout) < 250
