"""Runs the scripts of launch/ with stand-ins for the programs that they call.

A pytest plugin, loaded by tests/conftest.py.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"

# Of these tests, not of the machine: what a cluster or a GPU would say.
FOREIGN = ("JAX_", "SLURM_", "TPU_", "CUDA_VISIBLE_DEVICES", "PROCESS_DEVICES", "GRACE")

# Writes what it was called with; its first word of training says how it ends.
ANIGAN = """#!{python}
import json, os, signal, subprocess, sys, time
rank = os.environ.get("JAX_PROCESS_ID", "")
told = {{k: v for k, v in os.environ.items() if k.startswith(("JAX_", "CUDA_", "SLURM_"))}}
def save(number, frame):
    # Only the first process has something to write, and takes its time.
    time.sleep(0.6 if rank == "0" else 0)
    print("saved", flush=True)
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, save)
how, _, number = sys.argv[2].partition("-")
child = subprocess.Popen(["sleep", "60"]).pid if how in ("wait", "stuck") else 0
print(json.dumps({{"argv": sys.argv[1:], "env": told, "pid": os.getpid(), "child": child}}),
      flush=True)
if how == "exit" or how == "stuck" and rank == "1":
    sys.exit(int(number))
if how in ("wait", "stuck"):
    time.sleep(60)
"""


def put(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def shell(tmp_path):
    """Starts a script of launch/ with stand-ins first in PATH."""
    put(tmp_path / "bin", "anigan", ANIGAN.format(python=sys.executable))
    started = []

    def start(name: str, *args: str, **environment: str) -> subprocess.Popen:
        base = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        base["PATH"] = f"{tmp_path / 'bin'}:{base['PATH']}"
        started.append(
            subprocess.Popen(
                ["bash", str(LAUNCH / name), *args],
                env=base | environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # A group of its own, as a terminal gives it.
                start_new_session=True,
            )
        )
        return started[-1]

    # A process that inherits an ignored SIGINT, as from `pytest &`, cannot be interrupted.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, before)
    for process in started:
        # The script leads a session, in which its processes have groups of their own; while one
        # of them lives, it holds the pipe open.
        for pid in session_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=5)


def session_of(leader: int) -> list[int]:
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if path.read_text().rpartition(")")[2].split()[3] == str(leader):
                members.append(int(path.parent.name))
    return members


def told(output: str) -> dict[str, dict]:
    """Rank (or '') -> what the stand-in said there."""
    lines = re.findall(r"^(?:\[(\d+)\] )?(\{.*\})$", output, re.M)
    return {rank: json.loads(text) for rank, text in lines}


def until_all_run(process: subprocess.Popen, count: int) -> str:
    """Reads until `count` stand-ins have spoken."""
    text = ""
    while len(told(text)) < count:
        line = process.stdout.readline()
        assert line, f"ended early: {text}"
        text += line
    return text


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def nobody_left(output: str) -> bool:
    pids = [said[key] for said in told(output).values() for key in ("pid", "child")]
    for _ in range(20):
        # A kill is done a moment after it is asked for.
        if not any(alive(pid) for pid in pids if pid):
            return True
        time.sleep(0.1)
    return False
