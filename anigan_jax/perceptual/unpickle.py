"""Arrays out of pickles, which are never unpickled freely: NumPy trees and PyTorch's .pth files.

A pickle is a program. Here it may use only the instructions that build plain data, and
every global that it names becomes a stand-in of this file or is refused; nothing of NumPy's,
PyTorch's or Python's own is ever handed to it. Everything raised is some `Exception`; the
caller turns it into a sentence for people.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

INSTRUCTIONS = """
PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
"""
MEMO = 2**16
"""Slots a pickle may fill; the interpreter allocates as many as the largest one named."""
ENTRIES = 1024
"""Largest dict that is looked at: Inception-v3 of FID has 566."""
MAGIC = 0x1950A86A20F9469CFC6C
"""The first of the five pickles in PyTorch's format before 1.6."""
STREAM_START = b"\x80\x02\x8a\n" + MAGIC.to_bytes(10, "little")
STORAGES = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
}


class _Call:
    """What a pickle gets where it names a function: callable, and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args):
        return self._call(*args)

    def __setstate__(self, state):
        raise ValueError("its pickle changes a function")


class _Dict(dict):
    """collections.OrderedDict, without the attributes that PyTorch hangs on it."""

    def __setstate__(self, state):
        pass


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


class _Storage:
    """A run of numbers elsewhere in a .pth file."""

    __slots__ = ("count", "dtype", "key")

    def __init__(self, dtype: str, key: str, count: int):
        self.dtype, self.key, self.count = np.dtype(dtype), key, count

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


class _Tensor:
    """A view of a storage, checked to lie inside it."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage, offset, shape, strides, *_):
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise ValueError("a tensor is not well formed")
        _check_counts((offset, *shape, *strides))
        last = offset + sum(max(n - 1, 0) * s for n, s in zip(shape, strides, strict=True))
        # The second bound keeps strides of zero from growing a small file into a large array.
        if last >= max(storage.count, 1) or math.prod(shape) > storage.count:
            raise ValueError("a tensor lies outside its storage")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def __setstate__(self, state):
        """Of a Parameter: whether it is trained, and its hooks; neither matters."""

    def array(self, data: bytes) -> np.ndarray:
        if len(data) != self.storage.size:
            raise ValueError("a storage is cut short")
        flat = np.frombuffer(data, self.storage.dtype)[self.offset :]
        strides = [stride * flat.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides).copy()


def _check_counts(numbers) -> None:
    fits = isinstance(numbers, tuple) and len(numbers) <= 20
    if not fits or not all(isinstance(n, int) and 0 <= n < 2**40 for n in numbers):
        raise ValueError("a shape is not a few whole numbers")


def _parameter(data, *_):
    if not isinstance(data, _Tensor):
        raise ValueError("a parameter is no tensor")
    return data


NUMPY = {
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _Call(_Dtype),
    # Always called with a shape of zero; BUILD brings the true one.
    "numpy.core.multiarray._reconstruct": _Call(lambda *_: _Array()),
    "numpy._core.multiarray._reconstruct": _Call(lambda *_: _Array()),
}
TORCH = STORAGES | {
    "collections.OrderedDict": _Call(_Dict),
    "torch._utils._rebuild_tensor": _Call(_Tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_Tensor),
    "torch._utils._rebuild_parameter": _Call(_parameter),
    "torch.nn.parameter.Parameter": _Call(_parameter),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, known: dict, storages: dict):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._known, self._storages = known, storages

    def find_class(self, module: str, name: str):
        where = f"{module}.{name}"
        if where not in self._known:
            raise ValueError(f"its pickle asks for {where[:80]!r}")
        return self._known[where]

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *view = pid
        plain = kind == "storage" and isinstance(key, str) and view in ([], [None])
        if not plain or dtype not in STORAGES.values():
            raise ValueError("a storage is not a plain one")
        _check_counts((count,))
        found = self._storages.setdefault(key, _Storage(dtype, key, count))
        if (found.dtype, found.count) != (np.dtype(dtype), count):
            raise ValueError("a storage has two sizes")
        return found


def _build(file: BinaryIO, known: dict, storages: dict | None = None) -> Any:
    """The data of the pickle that starts here; the file is left behind its end."""
    start = file.tell()
    allowed = frozenset(INSTRUCTIONS.split())
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name not in allowed:
            raise ValueError(f"its pickle uses {instruction.name}")
        if instruction.name == "LONG_BINPUT" and argument >= MEMO:
            raise ValueError("its pickle remembers too much")
    end = file.tell()
    file.seek(start)
    return _Unpickler(file.read(end - start), known, {} if storages is None else storages).load()


def _entries(node, kinds: tuple) -> dict:
    if not isinstance(node, dict) or len(node) > ENTRIES:
        raise ValueError("it holds no dict of arrays")
    if not all(isinstance(k, str) and isinstance(v, kinds) for k, v in node.items()):
        raise ValueError("it holds something else than named arrays")
    return node


def numpy_tree(data: bytes) -> dict[str, np.ndarray]:
    """'path/to/leaf' -> array, of a pickled tree of dicts of NumPy arrays, three deep at most."""
    flat = {}

    def visit(node, path: str, depth: int) -> None:
        for name, value in _entries(node, (dict, _Array) if depth < 3 else (_Array,)).items():
            if isinstance(value, _Array):
                flat[path + name] = value.value
            else:
                visit(value, f"{path}{name}/", depth + 1)

    visit(_build(io.BytesIO(data), NUMPY), "", 1)
    return flat


def state_dict(path: Path, keep: str | tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of a PyTorch state dict whose names start with `keep`; others are not read.

    Source: torch/serialization.py, the zip format (since 1.6) and the one before.
    """
    with path.open("rb") as file:
        load = _of_stream if file.read(len(STREAM_START)) == STREAM_START else _of_zip
        file.seek(0)
        state, read = load(file)
        tensors = _entries(state, (_Tensor,))
        return {
            name: tensor.array(read(tensor.storage))
            for name, tensor in tensors.items()
            if name.startswith(keep)
        }


def _of_zip(file: BinaryIO):
    if not zipfile.is_zipfile(file):
        raise ValueError("its zip is cut short or damaged")
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError("a zip, but not PyTorch's")
    root = roots[0]

    def read(storage: _Storage | str) -> bytes:
        name = root + (storage if isinstance(storage, str) else f"data/{storage.key}")
        info = archive.getinfo(name)
        # PyTorch never compresses; refusing it leaves no room for a bomb.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError("its records are compressed")
        return archive.read(info)

    if f"{root}byteorder" in names and read("byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    return _build(io.BytesIO(read("data.pkl")), TORCH), read


def _of_stream(file: BinaryIO):
    magic, version, system = (_build(file, {}) for _ in range(3))
    if magic != MAGIC or version != 1001 or system.get("little_endian") is not True:
        raise ValueError("not PyTorch's format")
    storages: dict[str, _Storage] = {}
    state = _build(file, TORCH, storages)
    starts = {}
    for key in _build(file, {}):
        (count,) = struct.unpack("<q", file.read(8))
        if key not in storages or storages[key].count != count:
            raise ValueError("its storages are not those of its tensors")
        starts[key] = file.tell()
        file.seek(storages[key].size, io.SEEK_CUR)

    def read(storage: _Storage) -> bytes:
        file.seek(starts[storage.key])
        return file.read(storage.size)

    return state, read
