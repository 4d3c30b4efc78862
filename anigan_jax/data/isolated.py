"""Worker processes that a hostile file may kill or stop: bounded in memory, and replaced."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from anigan_jax.errors import MachineError

WORKER_MEMORY = 4 * 2**30
START_SECONDS = 120.0


class Died(Exception):
    """What a worker was given has killed it, or taken too long; it says which."""


class Worker:
    """One process, started when it is first asked and replaced when what it was asked kills it."""

    def __init__(self, probe: Callable, *args: Any):
        """`probe(*args)` starts its imports, so that no file is blamed for them."""
        self._probe = (probe, *args)
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def submit(self, function: Callable, *args: Any) -> concurrent.futures.Future:
        if self._pool is None:
            self._pool = pool(1)
            probe(self._pool, *self._probe)
        return self._pool.submit(function, *args)

    def result(self, future: concurrent.futures.Future, seconds: float) -> Any:
        """What was submitted gives.

        Raises:
          Died: and the worker is replaced. Other errors are those of the function.
        """
        try:
            return future.result(seconds)
        except BrokenProcessPool:
            self.end()
            raise Died("the decoder died") from None
        except TimeoutError:
            self.end()
            raise Died(f"over {seconds:g} s") from None

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._pool:
            kill(self._pool)
        self._pool = None


class _Pool(concurrent.futures.ProcessPoolExecutor):
    """Workers that import this package and nothing of the program that starts them.

    Python would have them run its main script again, which a script without a `__main__`
    guard, or a notebook, is not made for. A job for a pool that a worker's death has broken
    fails as those do that were under way.
    """

    def submit(self, *args, **kwargs) -> concurrent.futures.Future:
        main = vars(sys.modules["__main__"])
        hidden = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
        main["__spec__"] = None
        try:
            return super().submit(*args, **kwargs)
        except BrokenProcessPool as error:
            failed: concurrent.futures.Future = concurrent.futures.Future()
            failed.set_exception(error)
            return failed
        finally:
            main.update(hidden)


def pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    """Processes whose memory is bounded."""
    return _Pool(workers, multiprocessing.get_context("spawn"), initializer=_limit)


def probe(pool: concurrent.futures.ProcessPoolExecutor, function: Callable, *args: Any) -> None:
    """Starts a worker and its imports, so that no file is blamed for either.

    Workers that cannot start are the caller's mistake, not the images'.
    """
    try:
        pool.submit(function, *args).result(START_SECONDS)
    except BrokenProcessPool:
        raise MachineError("worker processes cannot start here; is there enough memory?") from None


def _limit() -> None:
    """Bounds a worker, so that one hostile file cannot take the machine, where that can be."""
    # Read when NumPy is imported, which nothing has done yet: of so many workers each would
    # start as many threads.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # macOS refuses every such limit, and other systems some.
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = WORKER_MEMORY if hard == resource.RLIM_INFINITY else min(WORKER_MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _end_with_parent() -> None:
    """A worker waits for jobs forever, and would do so after its program was killed."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    """Ends the workers, whatever they do."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
