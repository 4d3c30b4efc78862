"""One side in a process of its own: `... -m anigan_jax.bench.worker PLATFORM DEVICES`, a spec
on stdin.

Answers lines of JSON: first what was learned while building, then, for each number of
dispatches that it is asked for, how long they took; at the end its peak memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

from anigan_jax import config_file
from anigan_jax.runtime import environment

# Words of JAX's and PyTorch's errors where memory does not suffice.
EXHAUSTED = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory")


def main() -> None:
    # Whatever a library prints goes to stderr; the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _harm_nobody()
    environment.prepare(sys.argv[1], int(sys.argv[2]))
    spec = json.loads(sys.stdin.readline())

    def answer(**told) -> None:
        print(json.dumps(told), file=answers, flush=True)

    try:
        _serve(spec, answer)
    except Exception as error:
        traceback.print_exc()
        told = f"{type(error).__name__}: {error}"
        # Of this process, or of its accelerator.
        lacks = isinstance(error, MemoryError) or any(word in told for word in EXHAUSTED)
        answer(error=told, died=lacks)


def _harm_nobody() -> None:
    """On Linux: where memory runs out this process goes first, and it goes with its parent."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    # A bench that is killed could not end a side that compiles for minutes.
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _serve(spec: dict, answer) -> None:
    config = None
    if spec.get("config"):
        base = config_file.load(spec["config"])
        config = config_file.override(base, spec["overrides"], f"anigan bench {spec['config']}")
    from anigan_jax.bench import cases

    if spec["side"] != "torch":
        environment.start()
    with cases.temporary() as folder:
        if spec["side"] == "run":
            answer(**cases.whole_run(config, Path(folder), spec["steps"]))
            sys.stdin.read()
            answer(**memory(spec))
            return
        side = cases.build(spec, config, Path(folder))
        side.run()
        start = time.perf_counter()
        side.run()
        seconds = time.perf_counter() - start
        answer(seconds=seconds, images=side.images, **side.facts())
        for line in sys.stdin:
            count = int(line)
            # In the pages that another side's window left behind the first is slower.
            side.run()
            start = time.perf_counter()
            for _ in range(count):
                side.run()
            seconds = time.perf_counter() - start
            answer(seconds=seconds, images=count * side.images, **side.facts())
        answer(**memory(spec))


def memory(spec: dict) -> dict[str, int | bool]:
    """Peak of this process in MB (10^6 bytes): of the accelerator where one is used.

    On the 'host' compiling is in it.
    """
    if spec["side"] == "torch":
        import torch

        if torch.cuda.is_available():
            return {"memory_mb": round(torch.cuda.max_memory_allocated() / 1e6)}
    else:
        import jax

        told = jax.devices()[0].memory_stats() or {}
        if jax.default_backend() != "cpu" and "peak_bytes_in_use" in told:
            return {"memory_mb": round(told["peak_bytes_in_use"] / 1e6)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
    return {"memory_mb": megabytes, "host": True}


if __name__ == "__main__":
    main()
