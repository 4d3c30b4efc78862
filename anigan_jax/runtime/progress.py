"""Progress on a terminal, or in a log."""

from __future__ import annotations

import sys
import time


class Progress:
    """A bar on a terminal, a plain line every 20 seconds elsewhere; on stderr."""

    def __init__(self, total: int, initial: int):
        self.total, self.step, self.last = total, initial, time.monotonic()
        self.first: tuple[int, float] | None = None
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True)

    def update(self, step: int, line: dict) -> None:
        """Shows a metrics line at a step."""
        keys = ("loss/g", "loss/d", "images_per_sec")
        text = "  ".join(f"{k} {line[k]:.3g}" for k in keys if line.get(k) is not None)
        if self.bar:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(step - self.step)
        elif time.monotonic() - self.last > 20 or step >= self.total:
            self.last = time.monotonic()
            left = self._left(step)
            print(f"step {step}/{self.total}  {text}{left}", file=sys.stderr, flush=True)
        self.step = step
        # From the second line on: the first one waited for the compiler.
        self.first = self.first or (step, time.monotonic())

    def _left(self, step: int) -> str:
        """'  12 min left', from the speed since the first line."""
        if not self.first or step <= self.first[0] or step >= self.total:
            return ""
        pace = (time.monotonic() - self.first[1]) / (step - self.first[0])
        seconds = round(pace * (self.total - step))
        shown = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
        return f"  {shown} left" if seconds < 7200 else f"  {seconds / 3600:.1f} h left"

    def close(self) -> None:
        if self.bar:
            self.bar.close()
