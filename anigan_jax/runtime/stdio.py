"""The command line's own process: whatever shell, locale and memory it was started with.

A run must not end, or end in other bits, because of where its words go.
"""

from __future__ import annotations

import io
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

# glibc asks Linux for pages of 2 MB: a DCGAN step on a CPU is a tenth faster, as every
# dispatch gets its memory anew and hundreds of MB of it are touched.
LARGE_PAGES = "glibc.malloc.hugetlb=1"


class Unread(io.TextIOWrapper):
    """A text stream that goes on in silence when its reader has left (`| head`)."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._silence()

    def _silence(self) -> None:
        # What waits in the buffer goes there too, and so do the logs of libraries.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def prepare(trains: bool = False) -> None:
    """Makes names of files mean the same in every locale, and output optional.

    Must run first: it may start the process anew, in Python's UTF-8 mode and, where it
    trains, with memory in large pages.
    """
    # The next file would take the number of a closed stream, and then get its output.
    while (opened := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(opened)
    settings = {}
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        settings["PYTHONUTF8"] = "1"
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if trains and "glibc.malloc.hugetlb" not in tunables and _large_pages_on_request():
        settings["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, LARGE_PAGES)))
    if settings:
        os.environ.update(settings)
        os.execv(sys.executable, sys.orig_argv)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # As `python -u` wants it.
        through = stream is not None and stream.write_through
        raw = open(number, "wb", closefd=False) if stream is None else stream.detach()  # noqa: SIM115
        # Names of files are any bytes; a terminal shows what it can.
        lines = stream is not None and (number == 2 or os.isatty(number))
        made = Unread(raw, "utf-8", "backslashreplace", line_buffering=lines, write_through=through)
        setattr(sys, name, made)


def has_large_pages(env: Mapping[str, str]) -> bool:
    """Whether a process of this environment asks for them, as `prepare` makes it do."""
    return LARGE_PAGES in env.get("GLIBC_TUNABLES", "").split(":")


def without_large_pages(env: Mapping[str, str]) -> str:
    """GLIBC_TUNABLES of a process that does not ask for them."""
    kept = [one for one in env.get("GLIBC_TUNABLES", "").split(":") if one != LARGE_PAGES]
    return ":".join(kept)


def _large_pages_on_request() -> bool:
    """Whether the system has large pages, for those that ask; where all get them nobody must."""
    try:
        said = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False
    return "[madvise]" in said and platform.libc_ver()[0] == "glibc"
