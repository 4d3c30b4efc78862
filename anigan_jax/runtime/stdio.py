"""The standard streams of the command line: what is written there never ends or changes a run."""

from __future__ import annotations

import io
import os
import sys

from anigan_jax.errors import UserError


class BrokenPipeSafeStream(io.TextIOWrapper):
    """A text stream that goes on silently when its reader has gone (`| head`)."""

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


def prepare() -> None:
    """Makes output optional, and file names the same in every locale.

    Raises:
      UserError: Python does not read file names as UTF-8. Their order decides the order of the
        data, and so every bit of a run; Python chooses for good when it starts.
    """
    # The next file opened would get the number of a closed stream, and then its output.
    while (opened := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(opened)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # Respects `python -u`.
        through = stream is not None and stream.write_through
        raw = open(number, "wb", closefd=False) if stream is None else stream.detach()  # noqa: SIM115
        # File names are any bytes; a terminal shows what it can.
        by_line = stream is not None and (number == 2 or os.isatty(number))
        safe = BrokenPipeSafeStream(
            raw, "utf-8", "backslashreplace", line_buffering=by_line, write_through=through
        )
        setattr(sys, name, safe)
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise UserError(
            f"this locale reads file names as {encoding}; set PYTHONUTF8=1, or a UTF-8 locale"
        )
