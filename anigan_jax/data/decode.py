"""Bytes of an image file -> pixels, or the reason why not. One written rule per kind."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from anigan_jax.data.alpha import without_hidden
from anigan_jax.data.kinds import CONVERT, FORMATS, SUFFIXES, kind_of

# Part of every pack's key: raise it when the same files give other pixels or labels.
VERSION = 7
# Bounds the memory of a worker: about 16 bytes a pixel where it is transparent.
MAX_PIXELS = 100_000_000
# A 16-bit image with none as large shows black: 12 bits of a scanner, or 8 in wider numbers.
FEW_BITS = 4096
# A JPEG is decoded at an eighth of its size at least, and over this at the smallest fraction
# that leaves enough for the crop.
FULL_JPEG = 50_000_000
# Twice Pillow's own limit, over which it opens none.
MAX_JPEG = 178_956_970
MAX_BYTES = 256 * 2**20

# Bytes of a text or color profile of a PNG; Pillow's own limit, 1 MiB, refuses those of programs.
PngImagePlugin.MAX_TEXT_CHUNK = 2**24

REFUSED = {
    "empty": "the file has no bytes",
    "format": "only PNG, JPEG, WebP and BMP are read, whatever the file's name",
    "unreadable": "the decoder cannot read it",
    "truncated": "the file ends early; what is there is not used",
    "corrupt": "its data is damaged; what can be decoded is not used",
    "animated": "more than one frame",
    "too small": "its side is under half of the size asked for; `import --upscale` enlarges it",
    "too large": f"over {MAX_PIXELS:,} pixels ({MAX_JPEG:,} for a JPEG) or {MAX_BYTES >> 20} MiB",
    "crashed": "the decoder died, hung or ran out of memory",
    "link": "a link that leaves the source is not followed",
    "special": "a device, pipe or socket, not a file",
    "path": "an entry whose name is absolute, leads out, or is not portable",
    "repeated": "an entry whose name came before, ignoring letter case",
    "encrypted": "an entry that needs a password",
    "bomb": "an entry that unpacks to more than the limits allow",
    "box": "its face box is outside the image or is not a box",
    "leak": "held out, but a duplicate of a training image",
}
NOTED = {
    "extension": "read as what its content is",
    "cmyk": "converted to RGB as Pillow does, Adobe's inversion included",
    "16-bit": "the high byte of each value is used",
    "dark": "16-bit, with only values below 4,096, so nearly black; scale them to 65,535 first",
    "palette": "its colors are looked up as RGB",
    "transparent": "laid over white (or --background COLOR); --transparency keep keeps it",
    "rotated": "turned upright by its EXIF orientation",
    "grey": "repeated into three channels",
    "profile": "its color profile is converted to sRGB",
    "bad profile": "its color profile is damaged and ignored",
    "pages": "the first picture of a multi-picture JPEG is used",
    "reduced": "a huge JPEG is decoded at a fraction of its size",
    "cropped": "half of the picture or less is kept; --crop top, pad or boxes.csv keep other parts",
    "enlarged": "smaller than the size asked for",
    "duplicate": "the same pixels as another image",
    "mirror": "the mirror image of another image",
    "near": "nearly the pixels of another image",
    "chain": "alike in layout but not copies: grouped by closer pairs, so that they can be split",
    "held out": "fewer images than asked for: large groups of duplicates are never split",
    "untrained": "all images of a class are held out: it is not learned; --test 0 holds none out",
    "no label": "the label file has no row for it",
    "unlabeled": "its row gives no class for an attribute",
    "unknown tag": "words that name no class of an attribute are ignored",
    "silent": "it names images but says nothing that could be a label; it is ignored",
    "scores": "numbers from 0 to 1 under names of tags: 0.35 or more is a tag, as for WD14",
    "no attribute": "the labels name no colors and no classes; --attributes tags takes the tags",
    "folders": "no labels, and several folders; --attributes class makes each of them a class",
    "tables": "no labels are read; --tags FILE names a file that has some",
    "bad row": "a row of the label file cannot be read",
    "conflict": "its row names several classes of an attribute, or it has several rows",
    "no image": "a label or a box without its image",
    "no box": "the box file has no row for it; the center is used",
    "domains": "the two domains differ in number",
}


Upscale = Literal["limited", "smooth", "nearest"]


class Finding(NamedTuple):
    """Something to say about a file; `code` is a key of REFUSED or NOTED."""

    file: str
    code: str
    detail: str = ""

    @property
    def refused(self) -> bool:
        return self.code in REFUSED

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.file}: {self.code}{detail}"


class Refusal(ValueError):
    """A file that cannot be taken: `code` of REFUSED and a detail."""

    def __init__(self, code: str, detail: str = ""):
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code, self.detail = code, detail


@dataclass(frozen=True)
class Crop:
    """How an upright image becomes a square of `size` pixels."""

    size: int
    mode: Literal["center", "top", "pad", "box"] = "center"
    box: tuple[float, float, float, float] | None = None
    """Face box x, y, width, height in pixels of the upright image; mode box centers without."""
    box_scale: float = 1.5
    background: str = "white"
    """Color under transparent pixels and around a padded picture, by name or '#rrggbb'."""
    upscale: Upscale = "limited"
    """'limited': to less than twice the side; 'smooth': to any; 'nearest': too, without blur."""
    alpha: bool = False
    """Whether transparency is kept, and the border of a padded picture transparent."""


class Decoded(NamedTuple):
    """`pixels` (size, size, 3 or 4) uint8 RGB or RGBA, and (code, detail) pairs of NOTED."""

    pixels: np.ndarray
    notes: list[tuple[str, str]]


def decode(data: bytes, crop: Crop, suffix: str = "") -> Decoded:
    """Decodes one image file; never returns part of a picture.

    Args:
      data: the whole file.
      suffix: its name's ending, '.jpg'; '' to skip the comparison with the content.

    Raises:
      Refusal: with a code of REFUSED.
    """
    kind = _allowed_kind(data)
    notes = []
    if suffix and SUFFIXES.get(suffix.lower()) != kind:
        notes.append(("extension", f"{suffix} holds {kind}"))
    try:
        image, fraction = _load(data, kind, crop, notes)
        image = _upright(image, notes, "" if crop.alpha else crop.background)
        if fraction > 1 and crop.box:
            crop = replace(crop, box=tuple(value / fraction for value in crop.box))
        return Decoded(_square(image, crop, notes), notes)
    except Refusal:
        raise
    except MemoryError:
        raise Refusal("crashed", "out of memory") from None
    except Exception as error:
        # Conversions of damaged palettes and the like: AssertionError, ValueError, ...
        raise Refusal("unreadable", str(error) or type(error).__name__) from None


def _allowed_kind(data: bytes) -> str:
    if not data:
        raise Refusal("empty")
    if len(data) > MAX_BYTES:
        raise Refusal("too large", f"{len(data):,} bytes")
    kind = kind_of(data[:32])
    if kind == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise Refusal("truncated", "shorter than its header says")
    if kind in FORMATS:
        return kind
    if kind:
        raise Refusal("format", f"it is {kind}{CONVERT.get(kind, '')}")
    if not data.strip(b"\0"):
        raise Refusal("unreadable", "all bytes are zero")
    text = data[:256].isascii() and all(b >= 32 or b in b"\t\r\n\f" for b in data[:256])
    raise Refusal("format", "it is text" if text else "not a known image format")


def _load(data: bytes, kind: str, crop: Crop, notes: list) -> tuple[Image.Image, int]:
    """An opened, wholly decoded picture of one frame, and by what its sides were divided."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are checked below, before decoding
            image = Image.open(io.BytesIO(data), formats=(kind,))
            fraction = _shrink(image, crop, notes)
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise Refusal("animated", f"{frames} frames")
            if frames > 1:
                notes.append(("pages", str(frames)))
            image.load()
    except Refusal:
        raise
    except Image.DecompressionBombError:
        raise Refusal("too large", "by its header") from None
    except UnidentifiedImageError:
        raise Refusal("unreadable", f"its {kind} header is damaged") from None
    except Exception as error:
        # Pillow's plugins raise whatever they stumble over (struct.error, KeyError, ...).
        text = str(error).split("<")[0].strip() or type(error).__name__
        early = any(word in text.lower() for word in ("truncat", "too short", "not enough"))
        raise Refusal("truncated" if early else "unreadable", text) from None
    if kind == "JPEG":
        _check_jpeg(data, fraction)
    return image, fraction


def _shrink(image: Image.Image, crop: Crop, notes: list) -> int:
    """Has libjpeg decode a huge JPEG at a fraction of its size, or refuses what is too large.

    The part that is kept has still four times the side asked for.
    """
    pixels, fraction = image.width * image.height, 1
    if image.format in ("JPEG", "MPO") and FULL_JPEG < pixels <= MAX_JPEG:
        part = min(image.size)
        if crop.mode == "box" and crop.box:
            part = min(part, max(1, round(crop.box_scale * crop.box[2])))
        least = next((n for n in (8, 4, 2) if part // n >= 4 * crop.size), 1)
        fewest = next(n for n in (1, 2, 4, 8) if pixels <= n * n * MAX_PIXELS)
        fraction = max(least, fewest)
        image.draft(None, (image.width // fraction, image.height // fraction))
        pixels = image.width * image.height
        notes.append(("reduced", f"to 1/{fraction}"))
    if pixels > MAX_PIXELS:
        raise Refusal("too large", f"{image.width}x{image.height}")
    return fraction


def _check_jpeg(data: bytes, fraction: int) -> None:
    """Refuses a JPEG that libjpeg completes with grey: Pillow drops its warnings."""
    try:
        space = simplejpeg.decode_jpeg_header(data)[2]
        wanted = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(space, "RGB")
        small = {"min_height": 1, "min_width": 1, "min_factor": fraction} if fraction > 1 else {}
        simplejpeg.decode_jpeg(data, colorspace=wanted, strict=True, **small)
    except ValueError as error:
        text = str(error).removeprefix("Corrupt JPEG data: ")
        if "premature" in text.lower():
            raise Refusal("truncated", text) from None
        # Other complaints are about odd but whole files, which Pillow decoded; so is padding
        # between the last of the picture and its end.
        padded = re.match(r"(\d+) extraneous bytes before marker 0xd9", text)
        padding = data[: data.rfind(b"\xff\xd9")][-int(padded[1]) :] if padded else b"damaged"
        if text != str(error) and padding.strip(b"\0") and padding.strip(b"\xff"):
            raise Refusal("corrupt", text) from None


def _upright(image: Image.Image, notes: list, background: str) -> Image.Image:
    """Upright and in sRGB: RGB over a background, RGBA for ''; each conversion is noted."""
    turned = image.getexif().get(0x0112, 1) if image.format != "BMP" else 1
    profile = image.info.get("icc_profile")
    if turned in range(2, 9):
        notes.append(("rotated", f"EXIF orientation {turned}"))
        # Not image.info: a broken EXIF block must not stop the turn.
        image = image.transpose(_TURNS[turned])
    if image.mode.startswith("I") or image.mode == "F":
        notes.append(("16-bit", image.mode))
        values = np.asarray(image).astype(np.int64)
        if values.max() < FEW_BITS:
            notes.append(("dark", f"largest value {values.max():,}"))
        high = np.clip(values >> 8, 0, 255)
        image = Image.fromarray(high.astype(np.uint8))
    elif image.mode == "CMYK":
        notes.append(("cmyk", ""))
    elif image.mode in ("P", "PA"):
        notes.append(("palette", ""))
    elif image.mode in ("L", "LA", "1"):
        notes.append(("grey", ""))
    alpha = None
    if image.has_transparency_data or not background:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if background and alpha.getextrema()[0] < 255:
            notes.append(("transparent", ""))
    image = image.convert("RGB")
    image = _to_srgb(image, profile, notes) if profile else image
    if alpha:
        image.putalpha(alpha)
        if background:
            # In sRGB, which the color is in whatever the picture's profile.
            under = Image.new("RGBA", image.size, background)
            image = Image.alpha_composite(under, image).convert("RGB")
    return image


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _to_srgb(image: Image.Image, profile: bytes, notes: list) -> Image.Image:
    """Colors of an RGB profile in sRGB; profiles of other spaces are left alone."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != "RGB":
            return image
        name = _profile_name(opened)
        # Not 'GIMP built-in Linear sRGB', nor elle's '...-g10', which are much darker.
        if "srgb" in name.lower() and not re.search("linear|g10|scrgb", name.lower()):
            return image
        converted = ImageCms.profileToProfile(image, opened, _SRGB)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append(("bad profile", ""))
        return image
    notes.append(("profile", name))
    return converted


def _profile_name(opened: ImageCms.ImageCmsProfile) -> str:
    try:
        return opened.profile.profile_description or ""
    except ValueError:
        # Pillow 13 fails on names beyond ASCII; the colors are good.
        return ""


_SRGB = ImageCms.createProfile("sRGB")


def _square(image: Image.Image, crop: Crop, notes: list) -> np.ndarray:
    """Crops and resizes once, antialiased.

    Pillow resizes RGBA with its colors multiplied by alpha: what is hidden does not bleed.
    """
    size = crop.size
    if crop.mode == "box" and crop.box:
        left, top, side = head_square(image.size, crop.box, crop.box_scale)
    else:
        side = max(image.size) if crop.mode == "pad" else min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if crop.mode == "top":
            top = 0
        if crop.mode != "pad" and 2 * side <= max(image.size):
            # As pix2pix keeps its pairs.
            two = "; two side by side? magick FILE -crop 2x1@ +repage FILE-%d.png"
            twice = two if image.width == 2 * image.height else ""
            notes.append(("cropped", f"{image.width}x{image.height} to {side}x{side}{twice}"))
    if (2 * side < size and crop.upscale == "limited") or min(image.size) < 2:
        raise Refusal("too small", f"{image.width}x{image.height}, crop {side} for {size}")
    if side < size:
        notes.append(("enlarged", f"{side} to {size}"))
    nearest = crop.upscale == "nearest" and side < size
    resampling = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    if crop.mode == "pad" and image.width != image.height:
        if side > 32 * min(image.size):
            raise Refusal("too small", f"{image.width}x{image.height} is a line")
        # Resized before it is padded, so that the border keeps its color.
        border = (0, 0, 0, 0) if crop.alpha else crop.background
        image = ImageOps.pad(image, (size, size), resampling, color=border)
    else:
        image = image.crop((left, top, left + side, top + side))
        if side != size:
            image = image.resize((size, size), resampling)
    return without_hidden(np.asarray(image)) if crop.alpha else np.asarray(image)


def head_square(size: tuple[int, int], box, scale: float) -> tuple[int, int, int]:
    """Left, top and side of the square around a face box.

    A square of `scale` face widths centered at (x + w/2, y + 0.46 h); moved, and where it
    must be shrunk, to lie within the image.

    Raises:
      Refusal: 'box', where the box is empty or its center is outside the image.
    """
    width, height = size
    x, y, w, h = box
    center_x, center_y = x + w / 2, y + 0.46 * h
    if not (w >= 2 and h >= 2 and 0 <= center_x < width and 0 <= center_y < height):
        raise Refusal("box", f"{x:g},{y:g} {w:g}x{h:g} in {width}x{height}")
    side = min(round(scale * w), width, height)
    left = min(max(round(center_x - side / 2), 0), width - side)
    top = min(max(round(center_y - side / 2), 0), height - side)
    return left, top, side
