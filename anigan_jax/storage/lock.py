"""One process at a time in a folder: a lock that ends with its process."""

from __future__ import annotations

import os
import platform as host
import sys
import time
from pathlib import Path

from anigan_jax.errors import MachineError, UserError

FILE = "lock"


def held(workdir: Path) -> bool:
    """Whether a process holds a folder, on this machine or over its disk."""
    import fcntl

    try:
        with (workdir / FILE).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # There is no lock, or a disk that knows none.
    return False


def hold(workdir: Path, busy: str = "another process is training in"):
    """Holds a folder for this process; a second one is refused, `busy` and the folder's name."""
    if sys.platform == "win32":
        raise UserError("training needs file locks of Linux or macOS; on Windows use WSL")
    import fcntl

    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = (workdir / FILE).open("a+")
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written: {error}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # `held` has it for a moment.
            time.sleep(0.05)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        owner = handle.read(200).strip()
        told = f"{busy} {workdir}" + (f" ({owner})" if owner else "")
        if owner and not owner.endswith(f" on {host.node()}"):
            # Launchers try again after this, until the lock of a machine that is gone has ended.
            raise MachineError(f"{told}; if that machine is gone, delete {handle.name}") from None
        raise UserError(told) from None
    except OSError as error:
        raise UserError(f"{workdir} cannot be locked ({error}); use another place") from None
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {host.node()}\n")
    handle.flush()
    return handle


def lost(workdir: Path) -> bool:
    """Whether the folder that this process held was deleted, and another process has it now."""
    try:
        said = (workdir / FILE).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return False
    # Not the machine's name, which a laptop changes from network to network.
    return said[:1] == ["process"] and said[1:2] != [str(os.getpid())]
