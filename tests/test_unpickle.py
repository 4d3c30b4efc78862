"""Hostile pickles: refused with a message, and nothing of them is executed."""

import ast
import inspect
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
from foreign import Payload, save_torch, torchvisions, zipped

from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert, unpickle
from anigan_jax.storage import safetensors

PYTORCHS = "weights: (Unsupported (global: GLOBAL|operand)|Trying to load unsupported GLOBAL) "


@pytest.mark.fault(19)
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_call_are_refused_and_do_nothing(tmp_path, protocol):
    mark = tmp_path / "mark"
    for payload in (
        Payload(os.system, f"touch {mark}"),
        Payload(eval, f"open({str(mark)!r}, 'w')"),
        Payload(exec, f"open({str(mark)!r}, 'w')"),
        Payload(getattr, "", "join"),
        Payload(np.zeros, 10**12),
        Payload(np.load, str(mark)),
        Payload(print, "anything"),
    ):
        for tree in (payload, {"VGG16_0": payload}, {"features.0.weight": payload}):
            data = pickle.dumps(tree, protocol=protocol)
            ckpt, pth = tmp_path / "vgg16.ckpt", tmp_path / "vgg16.pth"
            ckpt.write_bytes(data)
            zipped(pth, {"data.pkl": data})
            with pytest.raises(UserError, match=r"its pickle (asks for '|uses LONG1)"):
                convert.read(ckpt)
            # PyTorch's own names for what it refuses, without its advice to trust the file.
            with pytest.raises(UserError, match=PYTORCHS) as refusal:
                convert.read(pth)
            start = b"".join(
                pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
            )
            pth.write_bytes(start + data)
            with pytest.raises(UserError, match=PYTORCHS) as refusal:
                convert.read(pth)
            assert "\n" not in str(refusal.value) and "trust" not in str(refusal.value)
    assert not mark.exists()


@pytest.mark.fault(19)
def test_pickles_that_bend_are_refused(tmp_path):
    path = tmp_path / "vgg16.ckpt"
    for data, match in (
        (b"\x80\x02(i__builtin__\nexit\n.", "uses INST"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "uses NEWOBJ"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "remembers too much"),
        (b"\x80\x02cnumpy\ndtype\n}X\x05\x00\x00\x00_callNsb.", "changes a function"),
        (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00i8\x85R.", "not of floats"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x05\x85cnumpy\ndtype\n"
         b"X\x02\x00\x00\x00f4\x85RNC\x04abcdtb.", "does not fit its bytes"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01J\xff\xff\xff\xff\x85cnumpy\n"
         b"dtype\nX\x02\x00\x00\x00f4\x85RNC\x04abcdtb.", "not a few whole numbers"),
        (b"\x80\x02K\x01.", "not a dict of arrays"),
        (b"\x80\x02}K\x01K\x01s.", "something other than named arrays"),
        # A dict that holds itself.
        (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "something other"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b".", ""),
        (b"\x80\x02B\xff\xff\xff\xffab.", ""),
        (b"\x80\x02", ""),
        (b"\x80\x09}.", ""),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"cannot be read as pretrained weights: .*{match}"):
            convert.read(path)


def tensor(torch, count, *view) -> bytes:
    """A state dict of one tensor, as PyTorch pickles it."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            pid = ("storage", torch.FloatStorage, "0", "cpu", count)
            return pid if isinstance(value, Storage) else None

    whole = io.BytesIO()
    state = {"features.0.weight": Payload(torch._utils._rebuild_tensor_v2, Storage(), *view)}
    Pickler(whole, 2).dump(state)
    return whole.getvalue()


@pytest.mark.parametrize(
    ("count", "offset", "size", "stride"),
    [
        (4, 0, (5,), (1,)),
        (4, 1, (4,), (1,)),
        (4, 0, (2, 2), (3, 1)),
        (4, 0, (10**9, 10**9), (0, 0)),
        (4, -1, (4,), (1,)),
        (4, 3, (2,), (-1,)),
        (4, 0, (4,), (2**62,)),
        (4, 0, (4,), (1, 1)),
        (4, 0, (2,) * 30, (0,) * 30),
        (2**62, 0, (4,), (1,)),
        (5, 0, (5,), (1,)),
        (0, 0, (1,), (1,)),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, count, offset, size, stride):
    torch = pytest.importorskip("torch")
    data = tensor(torch, count, offset, size, stride)
    path = zipped(tmp_path / "vgg.pth", {"data.pkl": data, "data/0": bytes(16)})
    # PyTorch takes strides of zero, which can grow a small file into a large array.
    with pytest.raises(UserError):
        convert.convert("vgg16", str(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hostile_zips_are_refused(tmp_path):
    good = save_torch(tmp_path / "good.pth", torchvisions(16))
    with zipfile.ZipFile(good) as archive:
        records = {n.split("/", 1)[1]: archive.read(n) for n in archive.namelist()}
    path = tmp_path / "vgg.pth"

    def refused(match: str = ""):
        with pytest.raises(UserError, match=f"cannot be read as pretrained weights: .*{match}"):
            convert.read(path)

    assert convert.read(zipped(path, records))
    zipped(path, records, zipfile.ZIP_DEFLATED)
    refused("compressed or overlap")
    zipped(path, records | {"data/0": b""})
    refused("does not match expected size")
    zipped(path, {name: data for name, data in records.items() if name != "data/0"})
    refused("data/0")
    zipped(path, {"readme": b""})
    refused()
    # The sizes in the directory, both made huge.
    data = bytearray(zipped(path, records).read_bytes())
    at = data.rindex(b"archive/data/0") - 46
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    refused("compressed or overlap")


def test_state_dicts_of_other_things_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pth"
    for state, match in (
        (torch.zeros(3), "not a dict of arrays"),
        ({"state_dict": {"features.0.weight": torch.zeros(3)}}, "other than named arrays"),
        ({f"features.{i}.weight": torch.zeros(1) for i in range(1025)}, "not a dict of arrays"),
        ({"features.0.weight": torch.zeros(3, dtype=torch.bfloat16)}, "BFloat16"),
        ({"features.0.weight": torch.zeros(3, 3).to_sparse()}, "[Ss]parse"),
    ):
        torch.save(state, path)
        with pytest.raises(UserError, match=f"cannot be read as pretrained weights: .*{match}"):
            convert.read(path)


def test_without_pytorch_or_with_an_old_one(tmp_path, monkeypatch, verb):
    path = zipped(tmp_path / "vgg19.pth", {"data.pkl": b""})

    def refused(*facts: str):
        code, out, error = verb("weights", "vgg19", "--from", path)
        assert code == 2 and not out and len(error.splitlines()) == 1
        assert all(fact in error for fact in (*facts, str(path), "pip install 'anigan_jax[torch]'"))

    # The parser of the command line looks for PyTorch when it is first used.
    assert verb("weights", "vgg19", "--from", tmp_path / "no")[0] == 2
    monkeypatch.setitem(sys.modules, "torch", None)
    refused("needs PyTorch")
    old = types.ModuleType("torch")
    old.__version__ = "2.9.1+cpu"
    monkeypatch.setitem(sys.modules, "torch", old)
    refused("could run code in PyTorch 2.9.1+cpu", "2.10 or newer")


def test_pytorch_is_told_literally_to_read_weights_only():
    calls = [
        {keyword.arg: keyword.value for keyword in node.keywords}
        for node in ast.walk(ast.parse(inspect.getsource(unpickle)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    (keywords,) = calls
    assert isinstance(keywords["weights_only"], ast.Constant)
    assert keywords["weights_only"].value is True


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 66176])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path, length):
    """Little-endian, 640 begins with the bytes of a pickle of protocol 2."""
    file = tmp_path / "weights.safetensors"
    safetensors.write({"a": np.arange(3, dtype=np.float32)}, file, {"step": 7})
    data = file.read_bytes()
    (own,) = struct.unpack_from("<Q", data)
    file.write_bytes(struct.pack("<Q", length) + data[8:][:own].ljust(length) + data[8 + own :])
    assert safetensors.metadata(file) == {"step": 7}
    assert (safetensors.read(file)["a"] == [0, 1, 2]).all()


@pytest.mark.parametrize("begin", [b"PK\x03\x04" + bytes(5), b"\x80\x02\x8a\nl\xfc\x9cF\xf9"])
def test_weights_of_pytorch_are_named_as_such(tmp_path, begin):
    file = tmp_path / "netG.pth"
    file.write_bytes(begin + bytes(100))
    for reads in (safetensors.read, safetensors.metadata):
        with pytest.raises(UserError, match="PyTorch"):
            reads(file)
