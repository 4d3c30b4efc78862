"""Files that are meant to harm: refused in words, and nothing of them is executed."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from foreign import Payload, save_torch, torchvisions, zipped

from anigan_jax.errors import UserError
from anigan_jax.perceptual import vgg_weights


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
            for path in (ckpt, pth):
                with pytest.raises(UserError, match="its pickle asks for '"):
                    vgg_weights.read(path)
            start = b"".join(
                pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
            )
            pth.write_bytes(start + data)
            with pytest.raises(UserError, match="its pickle asks for '"):
                vgg_weights.read(pth)
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
        (b"\x80\x02K\x01.", "no dict of arrays"),
        (b"\x80\x02}K\x01K\x01s.", "something else than named arrays"),
        # A dict that holds itself.
        (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "something else"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b".", ""),
        (b"\x80\x02B\xff\xff\xff\xffab.", ""),
        (b"\x80\x02", ""),
        (b"\x80\x09}.", ""),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"cannot be read as VGG weights: .*{match}"):
            vgg_weights.read(path)


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
    with pytest.raises(UserError, match=r"tensor|storage|whole numbers"):
        vgg_weights.read(path)


def test_zips_that_lie_are_refused(tmp_path):
    good = save_torch(tmp_path / "good.pth", torchvisions(16))
    with zipfile.ZipFile(good) as archive:
        records = {n.split("/", 1)[1]: archive.read(n) for n in archive.namelist()}
    path = tmp_path / "vgg.pth"

    def refused(match: str = ""):
        with pytest.raises(UserError, match=f"cannot be read as VGG weights: .*{match}"):
            vgg_weights.read(path)

    assert vgg_weights.read(zipped(path, records))
    zipped(path, records, zipfile.ZIP_DEFLATED)
    refused("compressed")
    zipped(path, records | {"data/0": b""})
    refused("cut short")
    zipped(path, {name: data for name, data in records.items() if name != "data/0"})
    refused("data/0")
    zipped(path, records | {"byteorder": b"big"})
    refused("little-endian")
    zipped(path, records | {"more/data.pkl": b""})
    refused("not PyTorch's")
    zipped(path, {"readme": b""})
    refused(r"not PyTorch's.*save it again: torch.save")
    # The sizes in the directory, both made huge.
    data = bytearray(zipped(path, records).read_bytes())
    at = data.rindex(b"archive/data/0") - 46
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    refused()
