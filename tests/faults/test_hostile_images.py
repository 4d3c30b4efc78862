"""Rows 15 to 17: what every kind of picture becomes, bit for bit; bombs go off nowhere."""

import hashlib
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import files
import numpy as np
import pytest
from PIL import Image
from tiny import process_env

from anigan_jax.data import decode as d
from anigan_jax.data.decode import Crop, Refusal, decode

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def painted(mode: str = "RGB", size: int = 40) -> Image.Image:
    """A picture of whole numbers alone, so that no library's rounding is in it."""
    y, x = np.mgrid[:size, :size]
    channels = np.stack([x * 6, y * 6, (x * y) % 251, 255 - (x + y) * 3], -1).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray((x * 1600 + y * 13).astype(np.uint16))
    if mode == "P":
        image = Image.fromarray(channels[..., 0] // 8)
        image.putpalette([(7 * i + c * 50) % 256 for i in range(256) for c in range(3)])
        return image
    count = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    picked = channels[..., 4 - count :] if count != 3 else channels[..., :3]
    return Image.fromarray(picked[..., 0] if count == 1 else np.ascontiguousarray(picked))


def deep_rgb() -> bytes:
    """A PNG of 16 bits for each of three channels, which Pillow cannot write."""
    y, x = np.mgrid[:40, :40]
    values = np.stack([x * 1600, y * 1600, x * y * 40], -1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels(rows)


def pixels(rows: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# JPEGs are kept as files: another libjpeg would write other ones.
KINDS = {
    "rgb.png": lambda: files.encode(painted()),
    "rgb.bmp": lambda: files.encode(painted(), "BMP"),
    "rgb.webp": lambda: files.encode(painted(), "WEBP", lossless=True),
    "grey.png": lambda: files.encode(painted("L")),
    "grey_alpha.png": lambda: files.encode(painted("LA")),
    "alpha.png": lambda: files.encode(painted("RGBA")),
    "palette.png": lambda: files.encode(painted("P")),
    "clear_palette.png": lambda: files.encode(painted("P"), transparency=3),
    "deep_grey.png": lambda: files.encode(painted("I;16")),
    "deep_rgb.png": deep_rgb,
    "turned.png": lambda: files.encode(painted(), exif=files.exif(6)),
    "profile.png": lambda: files.encode(painted(), icc_profile=files.swapped_profile()),
    "rgb.jpg": lambda: (GOLDEN / "rgb.jpg").read_bytes(),
    "cmyk.jpg": lambda: (GOLDEN / "cmyk.jpg").read_bytes(),
    "grey_progressive.jpg": lambda: (GOLDEN / "grey_progressive.jpg").read_bytes(),
}


@pytest.mark.fault(15)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same_bits_everywhere(name):
    """Another number here is another data set: raise decode.VERSION with it."""
    data = KINDS[name]()
    found = {
        mode: hashlib.sha256(decode(data, Crop(16, mode)).pixels.tobytes()).hexdigest()[:16]
        for mode in ("center", "pad")
    }
    golden = json.loads((GOLDEN / "decoded.json").read_text())
    assert found == golden[name]


@pytest.mark.fault(15)
def test_kinds_that_hold_the_same_picture_agree():
    want = np.asarray(painted())
    for name in ("rgb.png", "rgb.bmp", "rgb.webp"):
        assert (decode(KINDS[name](), Crop(40)).pixels == want).all(), name
    turned = decode(KINDS["turned.png"](), Crop(40)).pixels
    assert (turned == np.rot90(want, -1)).all()
    deep = decode(KINDS["deep_rgb.png"](), Crop(40)).pixels
    assert (deep[..., 0] == np.arange(40) * 1600 // 256).all()
    grey = decode(KINDS["deep_grey.png"](), Crop(40)).pixels
    assert (grey[0, :, 0] == np.arange(40) * 1600 // 256).all()


@pytest.mark.fault(15)
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_moving_pictures_are_refused_not_read_by_their_first_frame(kind):
    with pytest.raises(Refusal) as error:
        decode(files.animated(kind), Crop(16))
    assert error.value.code == ("format" if kind == "GIF" else "animated")


@pytest.mark.fault(16)
@pytest.mark.parametrize("mode", ["center", "pad", "box"])
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (2, 10_000), (15, 15)])
def test_too_little_is_refused_with_its_size(size, mode):
    crop = Crop(32, mode, (0, 0, *size) if mode == "box" else None)
    with pytest.raises(Refusal) as error:
        decode(files.picture(size=size), crop)
    assert error.value.code in ("too small", "box")
    assert f"{size[0]}x{size[1]}" in error.value.detail or error.value.code == "box"


@pytest.mark.fault(16)
def test_enough_is_taken_and_its_enlargement_noted():
    assert decode(files.picture(size=(16, 16)), Crop(32)).notes == [("enlarged", "16 to 32")]
    notes = decode(files.picture(size=(32, 1000)), Crop(32)).notes
    assert notes == [("cropped", "32x1000 to 32x32")]


def bombs() -> dict[str, bytes]:
    """name -> a small file that asks for a lot."""
    zeros = zlib.compress(b"\0" * 2**26, 9)
    large = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    small = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    good = pixels((b"\0" + bytes(64 * 3)) * 64)
    start = b"\x89PNG\r\n\x1a\n"
    text = chunk(b"zTXt", b"note\0\0" + zeros)
    nested = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    return {
        "large.png": start + chunk(b"IHDR", large) + pixels(b"\0" * 2**24),
        "text.png": start + chunk(b"IHDR", small) + text * 4 + good,
        "profile.png": start + chunk(b"IHDR", small) + chunk(b"iCCP", b"x\0\0" + zeros) + good,
        "long.png": start + chunk(b"IHDR", small) + pixels(b"\0" * 2**27),
        "large.jpg": files.noise_file(1, "JPEG").replace(b"\0\x40\0\x40", b"\xff\xff\xff\xff", 1),
        "large.bmp": struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 54, 40, 60_000, 60_000,
                                 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99),
        "large.webp": b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f" + bytes(5),
        "stars.png": b"SIMPLE  =                    T" + b" " * 50 + zeros,
        "stars.png.gz": b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zeros[2:],
        "endless.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n",
        "laughs.svg": f"<?xml?><!DOCTYPE x [<!ENTITY a0 'ha'>{nested}]><svg>&a9;</svg>".encode(),
    }  # fmt: skip


MEASURE = r"""
import json, pathlib, re, sys, time
from anigan_jax.data.decode import Crop, Refusal, decode
start = time.process_time()
try:
    code = "taken" if decode(pathlib.Path(sys.argv[1]).read_bytes(), Crop(64)) else ""
except Refusal as error:
    code = error.code
seconds = time.process_time() - start
# Not ru_maxrss, which a process takes over from its parent.
peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(json.dumps([code, int(peak[1]) / 1024, seconds]))
"""


@pytest.mark.long
@pytest.mark.fault(17)
def test_bombs_are_refused_in_little_memory_and_time(tmp_path):
    """Each in a process of its own: its whole memory is under 200 MB, its CPU time under 3 s."""
    found = {}
    for name, data in bombs().items():
        path = tmp_path / name
        path.write_bytes(data)
        assert len(data) < 2**18, name
        command = [sys.executable, "-c", MEASURE, path]
        done = subprocess.run(command, capture_output=True, text=True, env=process_env())
        assert done.returncode == 0, (name, done.stderr)
        found[name], peak, seconds = json.loads(done.stdout)
        assert peak < 200, (name, peak)
        assert seconds < 3, (name, seconds)
    # A long compressed text beside a whole picture hides nothing of the picture.
    assert found.pop("long.png") in ("taken", "unreadable", "truncated")
    assert set(found.values()) <= set(d.REFUSED), found
