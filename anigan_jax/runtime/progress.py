"""Progress on a terminal, or in a log."""

from __future__ import annotations

import sys
import time


class Progress:
    """A bar on a terminal, a plain line every 20 seconds elsewhere; on stderr."""

    def __init__(self, total: int, initial: int):
        self.total, self.step, self.last = total, initial, time.monotonic()
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
            print(f"step {step}/{self.total}  {text}", file=sys.stderr, flush=True)
        self.step = step

    def close(self) -> None:
        if self.bar:
            self.bar.close()
