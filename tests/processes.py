"""Trainings in processes of their own: started, watched, signalled, compared."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tiny import process_env

from anigan_jax.storage import checkpoint, metrics_file

# A line of metrics is the same in every run of the same bits but for this.
VOLATILE = ("images_per_sec",)
STARTED: list = []


def end_all() -> None:
    """Kills the trainings that still run."""
    while STARTED:
        STARTED.pop().end()


class Training(subprocess.Popen):
    """`anigan VERB ...` in a process; its output goes to a file.

    A test that fails leaves none behind, stopped ones neither.
    """

    def __init__(self, log: Path, *args, env=None):
        self.log = log
        with log.open("w") as out:
            super().__init__(
                [sys.executable, "-m", "anigan_jax", *map(str, args)],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**process_env(), **(env or {})},
                start_new_session=True,
            )
        STARTED.append(self)

    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition, seconds=120) -> None:
        """Waits for something that happens while the process lives."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None, f"it ended with {self.returncode}:\n{self.said()}"
            if time.monotonic() > deadline:
                self.end()
                raise AssertionError(f"it did not happen:\n{self.said()}")
            time.sleep(0.002)

    def ended(self, seconds=120) -> int:
        """The exit code; one that has not ended by then is killed."""
        try:
            return self.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"it did not end:\n{self.said()}") from None

    def end(self) -> None:
        """Kills it and all that it started, if it still runs."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(timeout=10)


# Of processes with several simulated devices. With QUICK_COMPILE's flag their bits depend on the
# steps of a dispatch, as they do not for users.
SIMULATED = {"NPROC": "16", "XLA_FLAGS": ""}


def ranks(folder: Path, world: int, *args, devices=4, name="rank", env=None, extra=None):
    """The same command by `world` processes that find one another through the environment.

    `env` and `extra` give a rank's own variables and arguments.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(world)}
    simulated = ("--run.platform", "cpu", "--run.devices", devices) if devices else ()
    return [
        Training(
            folder / f"{name}{i}.log",
            *args,
            *simulated,
            *(extra(i) if extra else ()),
            env={**SIMULATED, **where, "JAX_PROCESS_ID": str(i), **(env(i) if env else {})},
        )
        for i in range(world)
    ]


def cold(folder: Path) -> dict[str, str]:
    """Variables of a process that finds nothing compiled."""
    return {"XDG_CACHE_HOME": str(folder), "JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}


def steps_of(run: Path) -> list[int]:
    return checkpoint.steps(run / "checkpoints")


def newest(run: Path) -> int:
    return max(steps_of(run), default=0)


def written(run: Path) -> int:
    """Lines of metrics so far."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saving(run: Path, pid: int) -> bool:
    """Whether a process writes a checkpoint; another that was killed may have left its own."""
    return any((run / "checkpoints").glob(f".tmp-*-{pid}"))


def ledger(run: Path) -> list[dict]:
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    return [{k: str(v) for k, v in line.items() if k not in VOLATILE} for line in lines]


def prints(run: Path) -> dict[int, str]:
    return {
        line["step"]: line["fingerprint"]
        for line in metrics_file.read_metrics(run / "metrics.jsonl")
    }


def leaves(run: Path, step: int) -> dict:
    path = run / "checkpoints" / f"step_{step:09d}" / "manifest.json"
    return json.loads(path.read_text())["leaves"]


def same_end(run: Path, whole: Path) -> None:
    """Asserts that two runs ended in the same bits, by the same steps."""
    assert ledger(run) == ledger(whole)
    assert leaves(run, newest(run)) == leaves(whole, newest(whole))
