"""Progress on a terminal, or in a log; on stderr."""

from __future__ import annotations

import sys
import threading
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
        shown = [f"epoch {line['epoch']:.2f}"] if "epoch" in line else []
        shown += [f"{k} {line[k]:.3g}" for k in keys if line.get(k) is not None]
        text = "  ".join(shown)
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


class Stages:
    """Names what is done now on stderr, where it takes longer than a few seconds.

    Called with a stage's name when it begins; `close` ends the last one.
    """

    SOON, LATER = 3.0, 30.0

    def __init__(self) -> None:
        self.ended = threading.Event()

    def __call__(self, name: str) -> None:
        """Begins a stage."""
        self.close()
        self.ended = threading.Event()
        threading.Thread(target=self._tell, args=(name, self.ended), daemon=True).start()

    def _tell(self, name: str, ended: threading.Event) -> None:
        start, wait, since = time.monotonic(), self.SOON, ""
        while not ended.wait(wait):
            print(f"{name}{since} ...", file=sys.stderr, flush=True)
            wait, since = self.LATER, f", {time.monotonic() - start + self.LATER:.0f} s"

    def close(self) -> None:
        self.ended.set()
