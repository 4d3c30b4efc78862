"""Where images come from: painted faces, a folder, a zip. NumPy and Pillow only."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from anigan_jax.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Source:
    """Base of data settings; images are square RGB of `size` pixels."""

    def names(self) -> list[str]:
        """One name per image, in order."""
        raise NotImplementedError

    def key(self) -> dict:
        """What identifies the pixels (JSON)."""
        raise NotImplementedError

    def load(self, name: str) -> np.ndarray:
        """(size, size, 3) uint8; raises ValueError with the reason."""
        raise NotImplementedError

    policy = "error"

    def tags(self) -> list[str] | None:
        """A tag string per image, where the source knows them."""
        return None


@dataclass(frozen=True)
class PaintedFaces(Source):
    """Faces drawn by our own code: no licence, no download, exact tags."""

    count: int = 4096
    """Number of faces."""
    seed: int = 0
    """Seed of the faces."""
    size: int = 64
    """Side in pixels."""

    def names(self) -> list[str]:
        if self.count < 1:
            raise UserError(f"data.count is {self.count}; it must be at least 1")
        return [str(i) for i in range(self.count)]

    def key(self) -> dict:
        from anigan_jax.data import painted

        return {"source": "painted", "version": painted.VERSION, **asdict(self)}

    def load(self, name: str) -> np.ndarray:
        from anigan_jax.data import painted

        return painted.paint(self.seed, int(name), self.size)

    def tags(self) -> list[str]:
        from anigan_jax.data import painted

        return [painted.tags(painted.face(self.seed, i)) for i in range(self.count)]


@dataclass(frozen=True)
class Images(Source):
    """A folder (searched through) or a zip of images."""

    path: str = ""
    """Folder or .zip."""
    size: int = 64
    """Side in pixels; images are cropped to a centred square and resized once."""
    policy: Literal["error", "skip"] = "error"
    """What a faulty file does: stop with a list of all, or be left out and counted."""

    def names(self) -> list[str]:
        path = Path(self.path)
        if not self.path or not path.exists():
            raise UserError(f"data.path {self.path!r} does not exist; give a folder or a zip")
        if path.is_dir():
            found = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        else:
            try:
                with zipfile.ZipFile(path) as archive:
                    found = [i.filename for i in archive.infolist() if not i.is_dir()]
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(f"data.path {self.path!r} is no readable zip: {error}") from None
        hidden = ("__MACOSX", ".")
        names = [
            n
            for n in found
            if n.lower().endswith(SUFFIXES) and not any(p.startswith(hidden) for p in n.split("/"))
        ]
        if not names:
            raise UserError(f"data.path {self.path!r} holds no images ({', '.join(SUFFIXES)})")
        return sorted(names, key=lambda n: n.encode("utf-8", "surrogateescape"))

    def key(self) -> dict:
        path, digest = Path(self.path), hashlib.sha256()
        if path.is_dir():
            for name in self.names():
                content = hashlib.sha256((path / name).read_bytes()).hexdigest()
                digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
        elif path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        else:
            self.names()
        return {
            "source": "images",
            "sha256": digest.hexdigest(),
            "size": self.size,
            "policy": self.policy,
        }

    def load(self, name: str) -> np.ndarray:
        path = Path(self.path)
        if path.is_dir():
            return decode((path / name).read_bytes(), self.size)
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > MAX_PIXELS * 4:
                raise ValueError("the file is too large")
            return decode(archive.read(name), self.size)


def decode(data: bytes, size: int) -> np.ndarray:
    """Bytes of an image file -> (size, size, 3) uint8 RGB.

    Upright by EXIF, transparency over white, 16-bit grey scaled, centred square crop,
    one antialiased resize.

    Raises:
      ValueError: with the reason, for a file that cannot be taken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} is over {MAX_PIXELS} pixels")
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError("animated")
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise ValueError(f"unreadable: {error}".split("<")[0].strip()) from None
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    side = min(image.size)
    if 2 * side < size:
        raise ValueError(f"{image.width}x{image.height} is too small for {size}")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)
