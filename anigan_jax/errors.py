"""Errors that the user can act on: one line, no traceback; `code` is the exit code."""

import errno
import os
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""What a disk answers that is full, broken or read-only."""
GONE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE)
"""What a folder answers that was taken away."""


class UserError(Exception):
    """Something the user asked for that cannot be done, and was not begun.

    The message says what was given, what is allowed and what to do.
    """

    code = 2
    alike = False
    """Whether every process of a run raises it by itself."""


class DivergedError(UserError):
    """Training made NaN or Inf; the last finite checkpoint is kept."""

    code = 3
    alike = True


class MachineError(UserError):
    """Disk, memory or another process failed a run; the same command resumes it."""

    code = 4


def printable(text: object) -> str:
    """Names are untrusted: what no terminal shows, or what would steer it, is escaped."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return "".join(shown)


def machine_fault(error: BaseException | None, folder: Path) -> str | None:
    """What failed below the program: disk, memory; None where the fault is another.

    Args:
      folder: where the run writes.
    """
    texts = {os.strerror(number) for number in FULL}
    again = f"the same command resumes {folder}"
    while error is not None:
        text = str(error)
        if isinstance(error, OSError):
            gone = error.errno in GONE and str(error.filename).startswith(str(folder))
            if error.errno in FULL or gone:
                where = error.filename or "a file"
                return f"{where} cannot be written: {error.strerror}; {again}"
        elif found := [known for known in texts if known in text]:
            # Orbax and TensorStore raise other classes.
            return f"a file cannot be written: {found[0]}; {again}"
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
            first = text.strip().splitlines()[0][:200] if text else "of the host"
            return (
                f"memory ran out ({first}). To continue {folder}, use more devices "
                "(--run.devices) or a machine with more memory. A smaller --batch-size, or "
                "--method.remat if the method has it, needs a new run, which may start from "
                f"this one's weights: --init-from {folder}"
            )
        error = error.__cause__
    return None
