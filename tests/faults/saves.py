"""Writes in a process of their own, killed at a file boundary or recorded; see test_checkpoints.

python saves.py save|kill|steps SCENARIO FOLDER
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from anigan_jax.storage import atomic, checkpoint, images, safetensors

SAVES = Path(__file__).resolve()
# Python's own file operations, as it tells of them itself.
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link")


def script(what: str, scenario: str, folder: Path) -> list[str]:
    """The command of this file as a process."""
    return [sys.executable, "-W", "ignore", str(SAVES), what, scenario, str(folder)]


def state(value: int) -> dict:
    """A small state, another for each value."""
    weights = np.random.default_rng(value).normal(size=(20, 100)).astype(np.float32)
    return {"weights": weights, "count": np.int32(value), "empty": {}}


def begin(folder: Path) -> None:
    """What a scenario finds."""
    checkpoint.save(folder, 1, state(1), {"value": 1})


def next_step(folder: Path) -> None:
    """A run's next checkpoint, of which only the newest stays."""
    checkpoint.save(folder, 2, state(2), {"value": 2})
    checkpoint.prune(folder, 1)


def same_step(folder: Path) -> None:
    """The only checkpoint is replaced."""
    checkpoint.save(folder, 1, state(2), {"value": 2})
    checkpoint.prune(folder, 1)


def sheet(path: Path, value: int) -> None:
    images.save_image(images.grid(_images(value)), path)


def animation(path: Path, value: int) -> None:
    images.save_gif([images.grid(_images(value)[i:]) for i in range(3)], path)


def text(path: Path, value: int) -> None:
    atomic.save_text(f"{value}\n" * 3000, path)


def networks(path: Path, value: int) -> None:
    safetensors.write({"w": state(value)["weights"]}, path)


def _images(value: int) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


EXPORTS = {
    "sheet.png": sheet,
    "path.gif": animation,
    "best.json": text,
    "weights.safetensors": networks,
}


def exports(folder: Path, value: int = 2) -> None:
    """What is made to look at, or to be used elsewhere; it replaces what is there."""
    for name, write in EXPORTS.items():
        write(folder / name, value)


SCENARIOS = {"next_step": next_step, "same_step": same_step, "exports": exports}


def _die_at(number: int, folder: Path, log: Path) -> None:
    """SIGKILL before this process's operation of that number below a folder."""
    root, counted = str(folder), itertools.count(1)

    def hook(event: str, args: tuple) -> None:
        if event not in EVENTS:
            return
        path = os.fsdecode(args[0]) if isinstance(args[0], str | bytes) else ""
        base = args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
        if base != -1 and not path.startswith("/"):
            # shutil.rmtree names what it deletes within an open folder.
            path = f"{Path(f'/proc/self/fd/{base}').readlink()}/{path}"
        if path.startswith(root) and next(counted) == number:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.write(handle, f"{event} {path[len(root) :]}".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_everywhere(scenario: str, folder: Path) -> int:
    """folder/N/checkpoints as a kill at the N-th operation left it, N = 1, 2, ... to the end.

    folder/before is what each starts from. This process saves nothing itself: tensorstore does
    not survive a fork once it runs.
    """
    for number in itertools.count(1):
        mine = folder / str(number) / "checkpoints"
        shutil.copytree(folder / "before", mine)
        child = os.fork()
        if child == 0:
            _die_at(number, mine, folder / str(number) / "killed_at")
            SCENARIOS[scenario](mine)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return number - 1
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise SystemExit(f"the save failed by itself at operation {number}")
    raise AssertionError


def main() -> None:
    what, scenario, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()
    if what == "kill":
        print(json.dumps(kill_everywhere(scenario, folder)))
    elif what == "save":
        SCENARIOS[scenario](folder)
    else:
        # As a run does: takes up what is there, and goes on.
        resumed = checkpoint.restore(folder, state(0))
        at, end = resumed.step if resumed else 0, int(scenario)
        print(f"resumed from step {at}", flush=True)
        for step in range(at + 1, end + 1):
            checkpoint.save(folder, step, state(step), {"value": step})
            checkpoint.prune(folder, 1)
        found = checkpoint.restore(folder, state(0))
        (folder / "result").write_text(json.dumps(checkpoint.leaf_digests(found.state)))


if __name__ == "__main__":
    main()
