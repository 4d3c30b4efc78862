"""The painted faces once more, as a camera might see them: shaded, soft, grainy.

The same `painted.Face` in both styles is a pair whose truth is known, which photographs
and drawings of real people never are. Pixels are made by Pillow's integer drawing and by
elementwise sums, products, quotients and roots, which IEEE 754 rounds in one way only, and
chance by an integer hash: another NumPy gives the same bits.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from anigan_jax.data.synthetic.painted import BACKGROUNDS, EYES, HAIR, SCALE, SKINS, Face, face

# Part of every pack's key: raise it when the same photo comes out differently.
VERSION = 1
SHADED = 2  # shapes are cut at SCALE times the side, lamp is computed at this many
STRANDS = 128
CLOTHES = (66, 72, 96)
TIE = (190, 48, 62)
LIPS = (176, 92, 88)
# What a photo keeps of its colors, and the tint of its light.
SATURATION = 0.86
WARMTH = (1.03, 0.99, 0.93)
GRAIN = 2.6  # standard deviation of the noise in levels

# Outlines in units of the side, of the upright face; `_rounded` joins them smoothly.
_SKIN = ((0.5, 0.2), (0.65, 0.25), (0.708, 0.4), (0.706, 0.55), (0.685, 0.67), (0.63, 0.77),
         (0.555, 0.835), (0.5, 0.845), (0.445, 0.835), (0.37, 0.77), (0.315, 0.67),
         (0.294, 0.55), (0.292, 0.4), (0.35, 0.25))  # fmt: skip
_BACK = {
    "short": ((0.5, 0.12), (0.7, 0.2), (0.762, 0.42), (0.73, 0.64), (0.6, 0.74), (0.4, 0.74),
              (0.27, 0.64), (0.238, 0.42), (0.3, 0.2)),
    "long": ((0.5, 0.12), (0.71, 0.2), (0.78, 0.42), (0.81, 0.7), (0.88, 1.0), (0.86, 1.3),
             (0.5, 1.35), (0.14, 1.3), (0.12, 1.0), (0.19, 0.7), (0.22, 0.42), (0.29, 0.2)),
    "bob": ((0.5, 0.12), (0.71, 0.2), (0.79, 0.42), (0.835, 0.66), (0.81, 0.82), (0.68, 0.87),
            (0.5, 0.84), (0.32, 0.87), (0.19, 0.82), (0.165, 0.66), (0.21, 0.42), (0.29, 0.2)),
}  # fmt: skip
_TAIL = ((0.77, 0.36), (0.87, 0.36), (0.955, 0.54), (0.96, 0.78), (0.895, 1.03), (0.85, 1.0),
         (0.8, 0.76), (0.765, 0.52))  # fmt: skip
_CAP = ((0.5, 0.1), (0.63, 0.12), (0.73, 0.215), (0.772, 0.4), (0.745, 0.5), (0.69, 0.38),
        (0.62, 0.3), (0.5, 0.285), (0.38, 0.3), (0.31, 0.38), (0.255, 0.5), (0.228, 0.4),
        (0.27, 0.215), (0.37, 0.12))  # fmt: skip
_LOW = {"short": 0.6, "spiky": 0.58, "bob": 0.8, "long": 0.98, "twin_tails": 0.67}
_CUTS = ((0.29, 0.39, 0.5, 0.61, 0.71), (0.29, 0.44, 0.71), (0.29, 0.37, 0.46, 0.54, 0.63, 0.71))


def _scrambled(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 on uint64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _bytes(noise: int, stream: int, count: int) -> np.ndarray:
    """(count, 8) uint8 of chance, the same on any byte order."""
    start = (noise * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) % 2**64
    # Scrambled first: neighboring states would give the same numbers, moved by one.
    steps = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = _scrambled(_scrambled(np.array([start], np.uint64)) + steps)
    return x.astype("<u8").view(np.uint8).reshape(count, 8)


@functools.lru_cache(256)
def _rounded(points: tuple, mirrored: bool = False) -> tuple:
    """A closed Catmull-Rom curve through the points, as 6 times as many points."""
    n, curve = len(points), []
    for i in range(n):
        a, b, c, d = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        for step in range(6):
            t = step / 6
            xy = (
                q + 0.5 * t * (r - p + t * (2 * p - 5 * q + 4 * r - s + t * (3 * (q - r) + s - p)))
                for p, q, r, s in zip(a, b, c, d, strict=True)
            )
            curve.append(tuple(xy))
    return tuple((1 - x, y) for x, y in curve) if mirrored else tuple(curve)


@functools.lru_cache(256)
def _oval(x: float, y: float, rx: float, ry: float) -> tuple:
    turns = [2 * math.pi * i / 20 for i in range(20)]
    return tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in turns)


class _Layer:
    """Shapes in the turned coordinates of the face, on a supersampled mask or picture."""

    def __init__(self, f: Face, size: int, color=None):
        self.side, self.dx, self.dy = size * SCALE, f.dx, f.dy
        mode, ground = ("L", 0) if color is None else ("RGB", color)
        self.image = Image.new(mode, (self.side, self.side), ground)
        self.pen = ImageDraw.Draw(self.image)
        angle = math.radians(f.tilt)
        self.cos, self.sin = math.cos(angle), math.sin(angle)

    def at(self, points) -> list[tuple[float, float]]:
        cos, sin, right, down = self.cos, self.sin, 0.5 + self.dx, 0.6 + self.dy
        moved = [(x - 0.5, y - 0.6) for x, y in points]
        moved = [(x * cos - y * sin + right, x * sin + y * cos + down) for x, y in moved]
        return [(x * self.side, y * self.side) for x, y in moved]

    def fill(self, points, color=255) -> None:
        self.pen.polygon(self.at(points), fill=color)

    def line(self, points, color, width: float) -> None:
        pixels = max(1, round(width * self.side))
        self.pen.line(self.at(points), color, pixels, joint="curve")

    def shrunk(self) -> Image.Image:
        return self.image.reduce(SCALE // SHADED)


def _unit(image: Image.Image) -> np.ndarray:
    """uint8 mask -> (H, W, 1) float32 in [0, 1]."""
    return (np.asarray(image).astype(np.float32) / np.float32(255))[..., None]


def _mixed(color, saturation: float, factor: float = 1.0) -> tuple[int, ...]:
    """A color moved to or from its own grey, then made darker or lighter."""
    grey = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    moved = (round(factor * (grey + saturation * (c - grey))) for c in color)
    return tuple(max(0, min(255, c)) for c in moved)


@functools.lru_cache(8)
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(side, 1) and (1, side) float32 centers of the pixels in units of the side."""
    centers = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    return centers[:, None], centers[None, :]


def _coordinates(f: Face, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(side, side) float32 x and y of each pixel in the upright face."""
    down, right = _grid(side)
    angle = math.radians(f.tilt)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    x, y = right - np.float32(0.5 + f.dx), down - np.float32(0.6 + f.dy)
    return x * cos + y * sin + np.float32(0.5), y * cos - x * sin + np.float32(0.6)


def _blob(x, y, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """A soft hill: 1 at the center, 0 from the ellipse on."""
    x, y = (x - np.float32(cx)) * np.float32(1 / rx), (y - np.float32(cy)) * np.float32(1 / ry)
    hill = np.maximum(1 - x * x - y * y, 0)
    return hill * hill


def _ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high`, smooth between."""
    t = np.clip((value - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def _lambert(x, y, lamp, center, radii) -> np.ndarray:
    """Light of a lamp on an ellipsoid, 0 on its far side; the rim goes on outside.

    Args:
      lamp: direction to the lamp, to the right, down and to the camera; of length 1.
    """
    nx = (x - np.float32(center[0])) * np.float32(1 / radii[0])
    ny = (y - np.float32(center[1])) * np.float32(1 / radii[1])
    length = nx * nx + ny * ny
    nz = np.sqrt(np.maximum(1 - length, 0))
    towards = nx * np.float32(lamp[0]) + ny * np.float32(lamp[1])
    return np.maximum(towards / np.sqrt(np.maximum(length, 1)) + nz * np.float32(lamp[2]), 0)


def _ground(f: Face, side: int, lamp, noise: int) -> np.ndarray:
    """A wall far out of focus: darker, with a gradient and large soft patches."""
    down, right = _grid(side)
    patches = Image.fromarray(_bytes(noise, 1, 5)[:, :5].copy())
    soft = _unit(patches.resize((side, side), Image.Resampling.BICUBIC))[..., 0]
    lit = right if lamp[0] > 0 else 1 - right
    level = np.float32(0.36) + np.float32(0.26) * lit - np.float32(0.14) * down
    level = level + np.float32(0.16) * (soft - np.float32(0.5))
    color = np.array(_mixed(BACKGROUNDS[f.background], 2.4), np.float32)
    return level[..., None] * color


def _hair_masks(f: Face, size: int) -> tuple[Image.Image, Image.Image]:
    """Masks of the hair behind the head and of that in front of it."""
    back, front = _Layer(f, size), _Layer(f, size)
    back.fill(_rounded(_BACK.get(f.style, _BACK["short"])))
    if f.style == "twin_tails":
        back.fill(_rounded(_TAIL))
        back.fill(_rounded(_TAIL, mirrored=True))
    if f.style == "spiky":
        for i in range(9):
            a = math.radians(180 + 22.5 * i)
            ring = ((a - 0.24, 0.27, 0.28), (a, 0.4, 0.37), (a + 0.24, 0.27, 0.28))
            front.fill([(0.5 + r * math.cos(t), 0.42 + s * math.sin(t)) for t, r, s in ring])
    front.fill(_rounded(_CAP))
    for left, right in itertools.pairwise(_CUTS[f.fringe]):
        middle = (left + right) / 2
        depth = 0.46 - 0.25 * abs(middle - 0.5)
        front.fill(_rounded(((left - 0.03, 0.27), (middle, 0.22), (right + 0.03, 0.27),
                             (right, 0.36), (middle + 0.012, depth), (left, 0.36))))  # fmt: skip
    low = _LOW[f.style]
    lock = ((0.69, 0.3), (0.745, 0.32), (0.774, 0.46), (0.768, low - 0.03), (0.74, low),
            (0.722, low - 0.06), (0.712, 0.46))  # fmt: skip
    front.fill(_rounded(lock))
    front.fill(_rounded(lock, mirrored=True))
    return back.shrunk(), front.shrunk()


def _eye(c: _Layer, f: Face, x: float, skin) -> None:
    """An eye of natural size with its lids and brow; `x` its center."""
    ry, y = 0.026 * f.eye_open, 0.55
    almond = ((x - 0.05, y + 0.004), (x - 0.026, y - 0.8 * ry), (x + 0.004, y - ry),
              (x + 0.03, y - 0.75 * ry), (x + 0.05, y), (x + 0.026, y + 0.75 * ry),
              (x - 0.024, y + 0.8 * ry))  # fmt: skip
    c.line([(x + 0.052 * t, y - 0.006 - 1.5 * ry * (1 - t * t)) for t in (-0.9, -0.5, 0, 0.5, 0.9)],
           _mixed(skin, 1.0, 0.72), 0.009)  # fmt: skip
    c.fill(_rounded(almond), (226, 220, 214))
    c.fill(_oval(x, y - 0.001, 0.0255, min(0.0255, ry)), _mixed(EYES[f.eyes], 0.9, 0.62))
    c.fill(_oval(x, y + 0.003, 0.0205, min(0.02, 0.8 * ry)), _mixed(EYES[f.eyes], 0.95, 0.95))
    c.fill(_oval(x, y, 0.009, 0.01), (22, 18, 20))
    c.fill(_oval(x - 0.009, y - 0.009, 0.0055, 0.0055), (250, 250, 250))
    upper = [(x + 0.052 * t, y - (ry + 0.003) * (1 - t * t) + 0.001) for t in
             (-1, -0.7, -0.35, 0, 0.35, 0.7, 1)]  # fmt: skip
    c.line(upper, (56, 38, 34), 0.012)


def _features(f: Face, size: int) -> np.ndarray:
    """(H, W, 3) float32: the skin with eyes, brows, nostrils and lips, not lit yet."""
    skin, brow = _mixed(SKINS[f.skin], 1.15, 0.93), _mixed(HAIR[f.hair], 0.75, 0.55)
    c = _Layer(f, size, skin)
    for side in (-1, 1):
        x = 0.5 + 0.1 * side
        _eye(c, f, x, skin)
        arch = ((-1.0, 0.005), (-0.3, -0.007), (0.4, -0.011), (1.0, 0.006))
        c.line([(x + side * 0.06 * t, 0.487 + rise) for t, rise in arch], brow, 0.018)
        c.fill(_oval(0.5 + 0.021 * side, 0.682, 0.011, 0.007), _mixed(skin, 1.2, 0.5))
    _lips(c, f)
    return np.asarray(c.shrunk()).astype(np.float32)


def _lips(c: _Layer, f: Face) -> None:
    bend = {"smile": 0.022, "neutral": 0.0, "sad": -0.018, "open": 0.006}[f.mouth]
    wide = {"smile": 0.082, "neutral": 0.068, "sad": 0.066, "open": 0.066}[f.mouth]
    gape = 0.024 if f.mouth == "open" else 0.0
    y = 0.748 + 0.4 * bend

    def edge(lift: float) -> list[tuple[float, float]]:
        """Points from left to right, `lift` above the line between the lips."""
        turns = (-1, -0.66, -0.33, 0, 0.33, 0.66, 1)
        return [(0.5 + wide * t, y - bend * t * t - lift * (1 - t * t)) for t in turns]

    upper, lower = edge(0.017 + gape), edge(-0.026 - gape)
    upper[3] = upper[3][0], upper[3][1] + 0.005
    c.fill(upper + edge(0)[::-1], _mixed(LIPS, 1.0, 0.86))
    c.fill(edge(0) + lower[::-1], LIPS)
    if gape:
        c.fill(edge(gape) + edge(-gape)[::-1], (70, 26, 30))
        c.fill(edge(0.8 * gape) + edge(0.2 * gape)[::-1], (214, 206, 196))
    else:
        c.line(edge(0), (96, 44, 44), 0.01)


def _skin(f: Face, size: int, x, y, lamp, pores, shadow) -> np.ndarray:
    """(H, W, 3) float32 lit face; `pores` are its texture, (H, W, 1) `shadow` the hair's."""
    color = _features(f, size)
    away = -1.0 if lamp[0] > 0 else 1.0
    lit = 0.4 + np.float32(0.74) * _lambert(x, y, lamp, (0.5, 0.5), (0.26, 0.42))
    for cx in (0.4, 0.6):
        lit = lit * (1 - np.float32(0.2) * _blob(x, y, cx, 0.525, 0.1, 0.06))
        lit = lit + np.float32(0.07) * _blob(x, y, cx, 0.635, 0.09, 0.07)
    for cx, cy, rx, ry, change in (
        (0.5 + 0.034 * away, 0.62, 0.034, 0.11, -0.2),
        (0.5, 0.695, 0.055, 0.02, -0.22),
        (0.5 - 0.006 * away, 0.6, 0.018, 0.1, 0.1),
        (0.5 - 0.004 * away, 0.655, 0.026, 0.026, 0.14),
        (0.5, 0.793, 0.06, 0.018, -0.14),
        (0.5, 0.37, 0.13, 0.1, 0.07),
    ):
        lit = lit + np.float32(change) * _blob(x, y, cx, cy, rx, ry)
    lit = lit + np.float32(0.05) * (pores - np.float32(0.5))
    ruddy = 0.5 * _blob(x, y, 0.5, 0.665, 0.05, 0.05)
    for cx in (0.37, 0.63):
        ruddy = ruddy + np.float32(1.5 if f.blush else 0.4) * _blob(x, y, cx, 0.655, 0.085, 0.065)
    red = np.array((0.03, -0.15, -0.12), np.float32) * np.minimum(ruddy, 1.4)[..., None]
    return color * (1 + red) * lit[..., None] * (1 - np.float32(0.5) * shadow)


def _strands(x, y, noise: int) -> np.ndarray:
    """(H, W) float32 in [0, 1]: streaks that run out from the crown."""
    table = _bytes(noise, 2, STRANDS + 1).astype(np.float32) / np.float32(255)
    dx, dy = x - np.float32(0.5), np.abs(y - np.float32(0.02))
    # A stand-in for the angle that needs no arc tangent.
    turn = dx / (np.abs(dx) + np.float32(0.6) * dy + np.float32(0.02))
    where = (turn + 1) * np.float32(STRANDS / 2 - 0.01)
    fine = _between(table[:, 0], where)
    wide = _between(table[:, 1], where * np.float32(0.25))
    return np.float32(0.5) * (fine + wide)


def _between(table: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Values of a table between its entries."""
    whole = np.floor(where)
    part, first = where - whole, whole.astype(np.intp)
    left = table[first]
    return left + (part * part * (3 - 2 * part)) * (table[first + 1] - left)


def _hair(f: Face, x, y, lamp, noise: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) float32 colors of the hair behind the head and in front of it."""
    color = np.array(_mixed(HAIR[f.hair], 0.92), np.float32)
    strands = _strands(x, y, noise)
    body = _lambert(x, y, lamp, (0.5, 0.5), (0.33, 0.45))
    texture = np.float32(0.7) + np.float32(0.5) * strands
    front = (np.float32(0.34) + np.float32(0.54) * body) * texture
    # The band of gloss around the crown, broken up by the strands.
    bow = y - np.float32(0.2) - np.float32(1.1) * (x - np.float32(0.5)) * (x - np.float32(0.5))
    gloss = _ramp(-np.abs(bow), -0.07, 0.0) * _ramp(body, 0.45, 1.0) * strands
    deep = (np.float32(0.2) + np.float32(0.3) * body) * texture
    white = np.float32(60) * gloss[..., None]
    return color * deep[..., None], color * front[..., None] + white


def _neck(f: Face, size: int, x, y, lamp) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) float32 neck and clothes with the shadow of the chin, and their mask."""
    neck, cloth = _Layer(f, size), _Layer(f, size)
    neck.fill(((0.4, 0.7), (0.6, 0.7), (0.605, 0.9), (0.66, 1.3), (0.34, 1.3), (0.395, 0.9)))
    cloth.fill(_rounded(((0.02, 1.25), (0.1, 1.04), (0.3, 0.955), (0.385, 0.925), (0.43, 0.985),
                         (0.5, 1.01), (0.57, 0.985), (0.615, 0.925), (0.7, 0.955), (0.9, 1.04),
                         (0.98, 1.25), (0.5, 1.4))))  # fmt: skip
    skin = np.array(_mixed(SKINS[f.skin], 1.15, 0.93), np.float32)
    shape = np.float32(0.35) + np.float32(0.6) * _lambert(x, y, lamp, (0.5, 0.9), (0.13, 1.0))
    below = np.float32(0.45) + np.float32(0.55) * _ramp(y, 0.84, 0.97)
    color = skin * (shape * below)[..., None]
    woven = np.float32(0.4) + np.float32(0.6) * _lambert(x, y, lamp, (0.5, 1.2), (0.55, 0.5))
    covered = _unit(cloth.shrunk())
    color = color + covered * (np.array(CLOTHES, np.float32) * woven[..., None] - color)
    return color, np.maximum(_unit(neck.shrunk()), covered)


def _over(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return below + mask * (above - below)


def _camera(picture: np.ndarray, size: int, noise: int) -> np.ndarray:
    """(H, W, 3) float32 -> (size, size, 3) uint8: tint, a soft lens, the noise of the chip."""
    grey = picture[..., :1] * np.float32(0.299) + picture[..., 1:2] * np.float32(0.587)
    grey = grey + picture[..., 2:] * np.float32(0.114)
    picture = grey + np.float32(SATURATION) * (picture - grey)
    picture = picture * np.array(WARMTH, np.float32) + np.float32(6)
    image = Image.fromarray(np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(0.007 * size * SHADED))
    sharp = np.asarray(image.resize((size, size), Image.Resampling.BOX)).astype(np.float32)
    # Sums of bytes are nearly normal: 4 shared by the channels, 1 of each channel's own.
    raw = _bytes(noise, 3, size * size).astype(np.float32).reshape(size, size, 8)
    shared = raw[..., 0] + raw[..., 1] + raw[..., 2] + raw[..., 3] - np.float32(510)
    own = raw[..., 4:7] - np.float32(127.5)
    # Standard deviations: 147.8 of four bytes, 73.9 of one.
    grain = shared[..., None] * np.float32(GRAIN / 147.8) + own * np.float32(0.6 * GRAIN / 73.9)
    return np.clip(sharp + grain + np.float32(0.5), 0, 255).astype(np.uint8)


def draw(parameters: Face, size: int, noise: int) -> np.ndarray:
    """(size, size, 3) uint8 photo-like picture of a face.

    Args:
      noise: integer that decides everything of the photo that the face does not: from
        which side the light comes, strands, texture, background patches and grain.
    """
    f, side = parameters, size * SHADED
    x, y = _coordinates(f, side)
    chance = _bytes(noise, 4, 1)[0]
    lx = (0.3 + 0.3 * int(chance[0]) / 255) * (1 if chance[1] < 128 else -1)
    lamp = (lx, -0.45, math.sqrt(1 - lx * lx - 0.45 * 0.45))
    behind, before = _hair_masks(f, size)
    fall = round(0.02 * side)
    cast = before.filter(ImageFilter.GaussianBlur(0.018 * side))
    cast = _unit(ImageChops.offset(cast, -fall if lx > 0 else fall, 2 * fall))
    pores = _bytes(noise, 5, size * size // 8 + 1).ravel()[: size * size].reshape(size, size)
    pores = _unit(Image.fromarray(pores).resize((side, side), Image.Resampling.BICUBIC))[..., 0]
    oval, ties = _Layer(f, size), _Layer(f, size)
    oval.fill(_rounded(_SKIN))
    deep, front = _hair(f, x, y, lamp, noise)
    picture = _over(_ground(f, side, lamp, noise), deep, _unit(behind))
    picture = _over(picture, *_neck(f, size, x, y, lamp))
    picture = _over(picture, _skin(f, size, x, y, lamp, pores, cast), _unit(oval.shrunk()))
    if f.style == "twin_tails":
        for cx in (0.21, 0.79):
            ties.fill(_oval(cx, 0.38, 0.035, 0.042))
        picture = _over(picture, np.array(TIE, np.float32), _unit(ties.shrunk()))
    return _camera(_over(picture, front, _unit(before)), size, noise)


def paint(seed: int, index: int, size: int = 64) -> np.ndarray:
    """(size, size, 3) uint8 photo of face number `index`, the partner of `painted.paint`."""
    return draw(face(seed, index), size, seed * 2**32 + index)
