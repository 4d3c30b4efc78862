"""SIGTERM and SIGINT for a run: the first is noted, a second one ends the process at once, where
nobody works in it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

STOPS = (signal.SIGTERM, signal.SIGINT)
DOUBLED = 0.2
"""Seconds in which the same signal again is no second one: GNU timeout sends its own to the
process, and at once to the group that it is in."""


class Interrupted(Exception):
    """A signal came within `Stop.interruptible`."""


@dataclass
class Stop:
    """What signals asked for, or another thread by `ask`.

    Attributes:
      number: the first signal that asks to stop; 0: none.
      ready: training runs, so a checkpoint comes before the end; before that, a signal
        leaves at once, as there is nothing to save.
      asked: it was `ask`, not a signal.
      slept: the process was suspended and went on (SIGCONT) since this was last cleared.
    """

    number: int = 0
    ready: bool = False
    asked: bool = False
    slept: bool = False
    _interrupts: bool = False

    def ask(self) -> None:
        """Asks a training in another thread to save and stop, as an interrupt would."""
        self.asked = self.asked or not self.number
        self.number = self.number or signal.SIGINT

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that takes long and can be left: a signal raises `Interrupted` within it."""
        if self.number:
            raise Interrupted
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False

    def _on_stop(self, number: int) -> None:
        if self.number:
            return
        self.number = number
        if not self.ready:
            raise SystemExit(128 + number)
        if self._interrupts:
            raise Interrupted

    def _on_continue(self) -> None:
        self.slept = True


@contextlib.contextmanager
def caught(stop: Stop | None = None) -> Iterator[Stop]:
    """A `Stop` that signals write into, while the context lasts; in a thread they do not.

    In a notebook or a Python prompt a second signal ends nothing: the user's variables would go
    with the process.
    """
    stop = stop or Stop()
    if threading.current_thread() is not threading.main_thread():
        # Python hands signals to the main thread alone, where whoever started this has its own.
        yield stop
        return
    before = {n: signal.signal(n, lambda number, _: stop._on_stop(number)) for n in STOPS}
    before[signal.SIGCONT] = signal.signal(signal.SIGCONT, lambda *_: stop._on_continue())
    try:
        # Set where somebody types.
        ends = contextlib.nullcontext() if hasattr(sys, "ps1") else _second_ends()
        with ends, _swallowed_quietly(stop):
            yield stop
    except SystemExit:
        if stop.number and not stop.ready:
            print(f"stopped by signal {stop.number} before the first step", file=sys.stderr)
        raise
    finally:
        for number, handler in before.items():
            # None: what is no Python, whose handler nobody can give back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def _swallowed_quietly(stop: Stop) -> Iterator[None]:
    """Prints no traceback where a stop is raised in what can raise nothing.

    Python runs a handler between any two of its instructions, those of a garbage collector's
    callback too. The stop is noted all the same, and obeyed at the next step.
    """
    before = sys.unraisablehook

    def hook(found) -> None:
        if not (stop.number and isinstance(found.exc_value, SystemExit | Interrupted)):
            before(found)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def _second_ends() -> Iterator[None]:
    """Ends the process at the second signal, also while it compiles or waits for a device.

    Python runs no handler meanwhile, but its interpreter writes each signal into a pipe. Files
    are whole at every instant; what is being written is lost.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        last, when = 0, 0.0
        while data := os.read(read, 1):
            number, now = data[0], time.monotonic()
            if number not in STOPS or (number == last and now - when < DOUBLED):
                continue
            if last:
                os._exit(128 + number)
            last, when = number, now
        os.close(read)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)
