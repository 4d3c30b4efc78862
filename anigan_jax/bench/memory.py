"""How much memory is left, what a process holds of it, and whether more fits beside it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A side that has not run yet may take so many times what the largest has taken.
MARGIN = 1.5


class Held(NamedTuple):
    """Bytes of a process: resident now, and at most so far."""

    now: int
    peak: int


def available(root: Path = Path("/")) -> float:
    """Bytes that processes can still take before the kernel kills one; inf where it cannot be read.

    The least of what the machine has and of what each control group of this process still has
    below its limit, where pages of files that are not in use count as free.

    Args:
      root: of the file system that is asked.
    """
    free = _fields(root / "proc/meminfo").get("MemAvailable:", math.inf) * 1024
    return min([free, *_groups(root)])


def held(pid: int, root: Path = Path("/")) -> Held:
    """What a process holds; zeros where it is gone or cannot be read."""
    fields = _fields(root / f"proc/{pid}/status")
    return Held(*(int(fields.get(name, 0)) * 1024 for name in ("VmRSS:", "VmHWM:")))


def fits(alive: list[Held], free: float, more: float) -> bool:
    """Whether there is room for `more` bytes while these stay alive.

    Those that have given memory back take it again in their next window.
    """
    return free - sum(each.peak - each.now for each in alive) >= more


def _groups(root: Path) -> Iterator[float]:
    """Bytes below the limit of each control group (version 2, or 1) that this process is in."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = root / "sys/fs/cgroup" / controllers
        names = ("memory.max", "memory.current", "inactive_file")
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        inside = base / path.lstrip("/")
        # Within a container the path may be that of the host, and the limit stands at the top.
        for folder in (inside, *(each for each in inside.parents if each.is_relative_to(base))):
            limit, used = (_lines(folder / name) for name in names[:2])
            if limit and used and limit[0] != "max":
                files = _fields(folder / "memory.stat").get(names[2], 0)
                yield int(limit[0]) - int(used[0]) + files


def _fields(path: Path) -> dict[str, float]:
    """First word -> the number behind it, of each line that has one."""
    words = [line.split() for line in _lines(path)]
    return {each[0]: float(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text().splitlines()
    return []
