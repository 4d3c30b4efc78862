"""The backend that a program is traced for; it decides the form of what has several.

All forms of a function are equal, bit by bit or up to rounding, as each says.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_BACKEND: contextvars.ContextVar[str] = contextvars.ContextVar("backend", default="")


def traced() -> str:
    """What `traced_for` names, or else this process's backend: 'cpu', 'gpu' or 'tpu'."""
    return _BACKEND.get() or jax.default_backend()


def launches() -> bool:
    """Whether each kernel is a launch that costs microseconds, as on GPUs."""
    return traced() in ("gpu", "cuda", "rocm")


def accelerated() -> bool:
    """Whether few large kernels and collectives are quicker than many: on all but CPUs."""
    return traced() != "cpu"


@contextlib.contextmanager
def traced_for(backend: str) -> Iterator[None]:
    """What is traced within takes the form of that backend, such as 'cuda'."""
    token = _BACKEND.set(backend)
    try:
        yield
    finally:
        _BACKEND.reset(token)
