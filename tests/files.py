"""Image files of every kind, made byte by byte where a library would not make them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(color=(200, 30, 60), size=(20, 12), mode="RGB", kind="PNG", **options) -> bytes:
    return encode(Image.new(mode, size, color), kind, **options)


def noise(seed: int, size: int = 64) -> Image.Image:
    """A smooth random picture, unlike any other seed's."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def noise_file(seed: int, kind: str = "PNG", size: int = 64, **options) -> bytes:
    return encode(noise(seed, size), kind, **options)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data does not have."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def swapped_profile() -> bytes:
    """An RGB color profile in which red and blue change places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"tmp1").replace(b"bXYZ", b"rXYZ").replace(b"tmp1", b"bXYZ")
    # Its name says sRGB, which would be taken as it is.
    return bytes(data.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def animated(kind: str) -> bytes:
    return encode(noise(1), kind, save_all=True, append_images=[noise(2), noise(3)])


def half_jpeg() -> bytes:
    """A JPEG cut in its data and closed again: libjpeg completes it with grey."""
    data = noise_file(4, "JPEG", quality=95)
    return data[: len(data) // 2] + b"\xff\xd9"


# name -> (bytes, the code that must be found). Every file is bad in its own way.
BAD = {
    "empty.png": (b"", "empty"),
    "zeros.jpg": (b"\0" * 500, "unreadable"),
    "text.png": (b"this is not an image at all\n", "format"),
    "random.jpg": (np.random.default_rng(0).bytes(400), "format"),
    "page.jpg": (b"<!DOCTYPE html><html>404 not found</html>", "format"),
    "vector.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "format"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "format"),
    "still.gif": (noise_file(5, "GIF"), "format"),
    "moving.gif": (animated("GIF"), "format"),
    "scan.tif": (noise_file(6, "TIFF"), "format"),
    "icon.ico": (noise_file(7, "ICO"), "format"),
    "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format"),
    "paper.jpg": (b"%PDF-1.7\n%\xe2\xe3\n", "format"),
    "layers.psd": (b"8BPS\0\1" + b"\0" * 40, "format"),
    "stars.png": (b"SIMPLE  =                    T" + b" " * 50, "format"),
    "jpeg2000.jpg": (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40, "format"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0heic", "format"),
    "inner.zip": (b"PK\3\4" + b"\0" * 60, "format"),
    "cut.png": (noise_file(8)[:-800], "truncated"),
    "cut.jpg": (noise_file(9, "JPEG", quality=95)[:1500], "truncated"),
    "cut.webp": (noise_file(10, "WEBP", quality=95)[:600], "truncated"),
    "cut.bmp": (noise_file(11, "BMP")[:5000], "truncated"),
    "half.jpg": (half_jpeg(), "truncated"),
    "header_only.png": (b"\x89PNG\r\n\x1a\n", "unreadable"),
    "header_only.jpg": (b"\xff\xd8\xff\xe0", "unreadable"),
    "moving.png": (animated("PNG"), "animated"),
    "moving.webp": (animated("WEBP"), "animated"),
    "one_pixel.png": (picture(size=(1, 1)), "too small"),
    "line.png": (picture(size=(1, 4000)), "too small"),
    "tiny.jpg": (picture(size=(9, 9), kind="JPEG"), "too small"),
    "huge.png": (png_of(50_000, 50_000), "too large"),
    "lie.png": (png_of(600, 600), "truncated"),
}
