"""Arrays out of pickles, without running them: NumPy trees here, PyTorch's .pth by PyTorch.

A pickle is a program. Here it may use only the instructions that build plain data, and
every global that it names becomes a stand-in of this file or is refused; nothing of NumPy's
or Python's own is ever handed to it. PyTorch does the like for its own files
(`weights_only=True`). Everything raised is some `Exception`; the caller turns it into a message.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anigan_jax.errors import UserError

INSTRUCTIONS = """
PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINUNICODE SHORT_BINUNICODE
BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT SETITEM SETITEMS
BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""
MEMO = 2**16
"""Slots a pickle may fill; the interpreter allocates as many as the largest one named."""
ENTRIES = 1024
"""Largest dict that is looked at: Inception-v3 of FID has 566."""
TORCH_ZIP = b"PK"
TORCH_STREAM = b"\x80\x02\x8a\n" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""The first bytes of a .pth since PyTorch 1.6, and before."""
SAFE_TORCH = (2, 10)
"""Before it, weights_only=True could be made to run code (CVE-2025-32434, CVE-2026-24747)."""


class _Call:
    """What a pickle gets where it names a function: callable, and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args):
        return self._call(*args)

    def __setstate__(self, state):
        raise ValueError("its pickle changes a function")


class _Dtype:
    """numpy.dtype of little-endian floats."""

    __slots__ = ("code",)

    def __init__(self, code, *_):
        if code not in ("f2", "f4", "f8"):
            raise ValueError("its arrays are not of floats")
        self.code = f"<{code}"

    def __setstate__(self, state):
        if state[1] != "<":
            raise ValueError("its numbers are not little-endian")


class _Array:
    """numpy.ndarray, made of bytes that the pickle holds."""

    __slots__ = ("value",)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise ValueError("an array has no numbers")
        _check_counts(shape)
        if math.prod(shape) * np.dtype(dtype.code).itemsize != len(data):
            raise ValueError("an array's shape does not fit its bytes")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(data, dtype.code).reshape(shape, order=order)


def _check_counts(numbers) -> None:
    fits = isinstance(numbers, tuple) and len(numbers) <= 20
    if not fits or not all(isinstance(n, int) and 0 <= n < 2**40 for n in numbers):
        raise ValueError("a shape is not a few whole numbers")


STAND_INS = {
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _Call(_Dtype),
    # Always called with a shape of zero; BUILD brings the true one.
    "numpy.core.multiarray._reconstruct": _Call(lambda *_: _Array()),
    "numpy._core.multiarray._reconstruct": _Call(lambda *_: _Array()),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        where = f"{module}.{name}"
        if where not in STAND_INS:
            raise ValueError(f"its pickle asks for {where[:80]!r}")
        return STAND_INS[where]


def _build(data: bytes) -> Any:
    allowed = frozenset(INSTRUCTIONS.split())
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name not in allowed:
            raise ValueError(f"its pickle uses {instruction.name}")
        if instruction.name == "LONG_BINPUT" and argument >= MEMO:
            raise ValueError("its pickle remembers too much")
    return _Unpickler(io.BytesIO(data), encoding="utf-8").load()


def _entries(node, kinds: type | tuple[type, ...]) -> dict:
    if not isinstance(node, dict) or len(node) > ENTRIES:
        raise ValueError("it is not a dict of arrays")
    if not all(isinstance(k, str) and isinstance(v, kinds) for k, v in node.items()):
        raise ValueError("it holds something other than named arrays")
    return node


def numpy_tree(data: bytes) -> dict[str, np.ndarray]:
    """'path/to/leaf' -> array, of a pickled tree of dicts of NumPy arrays, three deep at most."""
    flat = {}

    def visit(node, path: str, depth: int) -> None:
        for name, value in _entries(node, (dict, _Array) if depth < 3 else _Array).items():
            if isinstance(value, _Array):
                flat[path + name] = value.value
            else:
                visit(value, f"{path}{name}/", depth + 1)

    visit(_build(data), "", 1)
    return flat


def torch_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Arrays of the state dict in a .pth file, of either of PyTorch's formats.

    Raises:
      UserError: PyTorch is not installed, or too old to read a stranger's file.
    """
    _check_zip(path)
    install = "`pip install 'anigan_jax[torch]'`"
    try:
        import torch
    except ImportError:
        raise UserError(f"reading {path} needs PyTorch: {install}") from None
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        needed = ".".join(map(str, SAFE_TORCH))
        raise UserError(
            f"{path} could run code in PyTorch {torch.__version__}; "
            f"reading it needs {needed} or newer: {install}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(_reason(error)) from None
    return {name: tensor.detach().numpy() for name, tensor in _entries(state, torch.Tensor).items()}


def _check_zip(path: Path) -> None:
    """Refuses zips that could unpack to more than their size; PyTorch would read them."""
    with path.open("rb") as file:
        if file.read(len(TORCH_ZIP)) != TORCH_ZIP:
            return
    if not zipfile.is_zipfile(path):
        raise ValueError("its zip is cut short or damaged")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    if not stored or sum(record.file_size for record in records) > path.stat().st_size:
        raise ValueError("its records are compressed or overlap, which PyTorch's never do")


def _reason(error: Exception) -> str:
    """PyTorch's own reason, without its advice on how to trust the file."""
    # Some of its messages name the reason behind these words, others in a later paragraph.
    text = str(error).rpartition("WeightsUnpickler error:")[2]
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("Weights only load failed"):
            return line.partition(". ")[0]
    return type(error).__name__
