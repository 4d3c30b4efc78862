"""Anime faces drawn with Pillow from a seed and an index; exact tags and landmarks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from anigan_jax.data.attributes import Attribute, tag
from anigan_jax.errors import UserError

# Part of every pack's key: raise it when the same face is drawn differently.
VERSION = 1
# The same for what is drawn only where attributes are named: glasses, hats and clear mouths.
NAMED_VERSION = 2
SCALE = 4  # supersampling
HAIR = {
    "orange": (240, 140, 50),
    "white": (240, 240, 245),
    "aqua": (90, 215, 215),
    "gray": (150, 150, 158),
    "green": (85, 175, 90),
    "red": (205, 50, 50),
    "purple": (140, 85, 190),
    "pink": (245, 155, 195),
    "blue": (65, 105, 215),
    "black": (48, 44, 54),
    "brown": (125, 80, 48),
    "blonde": (245, 215, 115),
}
EYES = {
    "gray": (140, 140, 150),
    "black": (45, 40, 50),
    "orange": (235, 130, 35),
    "pink": (240, 120, 175),
    "yellow": (235, 205, 50),
    "aqua": (60, 205, 210),
    "purple": (145, 75, 200),
    "green": (60, 165, 80),
    "brown": (130, 80, 40),
    "red": (210, 40, 50),
    "blue": (50, 100, 225),
}
HAIR_COLORS, EYE_COLORS = tuple(HAIR), tuple(EYES)
STYLES = ("short", "long", "bob", "twin_tails", "spiky")
MOUTHS = ("smile", "neutral", "open", "sad")
WORN = ("glasses", "hat")
ATTRIBUTES = {
    "hair": Attribute("hair", HAIR_COLORS),
    "eyes": Attribute("eyes", EYE_COLORS),
    "style": Attribute("style", tuple(name.replace("_", " ") for name in STYLES)),
    "mouth": Attribute("mouth", MOUTHS),
    **{name: tag(name) for name in ("blush", "smile", *WORN)},
}
SKINS = ((255, 228, 208), (252, 214, 188), (242, 196, 164))
BACKGROUNDS = (
    (214, 230, 245),
    (245, 224, 232),
    (226, 242, 222),
    (246, 238, 214),
    (228, 224, 244),
    (236, 236, 236),
)


@dataclass(frozen=True)
class Face:
    """Every parameter of a face; lengths are in units of the image side."""

    hair: str
    eyes: str
    style: str
    mouth: str
    skin: int
    background: int
    fringe: int
    tilt: float
    """Degrees, positive clockwise."""
    dx: float
    dy: float
    eye_open: float
    blush: bool
    worn: tuple[str, ...] = ()
    """Of `WORN`."""
    clear_mouth: bool = False
    """Drawn large, so that 64 pixels show which of `MOUTHS` it is."""


def _hash(seed: int, index: int, field: int) -> float:
    """splitmix64 of three integers as a number in [0, 1)."""
    mask = (1 << 64) - 1
    x = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + field * 0x8CB92BA72F3D8DD7) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ((x ^ (x >> shift)) * factor) & mask
    return (x ^ (x >> 31)) / 2**64


def face(seed: int, index: int, names: tuple[str, ...] = ()) -> Face:
    """The parameters of face number `index`, a pure function.

    Args:
      names: of `ATTRIBUTES`: every other face wears what is named of `WORN`, and the mouth is
        drawn large where it or a smile is named; all else stays as it is.
    """
    draws = iter(range(1, 100))

    def u() -> float:
        return _hash(seed, index, next(draws))

    def pick(options):
        return options[int(u() * len(options))]

    return Face(
        hair=pick(HAIR_COLORS),
        eyes=pick(EYE_COLORS),
        style=pick(STYLES),
        mouth=pick(MOUTHS),
        skin=pick(range(len(SKINS))),
        background=pick(range(len(BACKGROUNDS))),
        fringe=pick(range(3)),
        tilt=16 * u() - 8,
        dx=0.05 * u() - 0.025,
        dy=0.05 * u() - 0.025,
        eye_open=0.75 + 0.3 * u(),
        blush=u() < 0.4,
        worn=tuple(
            name
            for field, name in enumerate(WORN, start=101)
            if name in names and _hash(seed, index, field) < 0.5
        ),
        clear_mouth="smile" in names or "mouth" in names,
    )


def attributes(names: tuple[str, ...]) -> tuple[Attribute, ...]:
    """What painted faces can be told apart by, by name; hair and eyes for ().

    Raises:
      UserError: there is no such attribute.
    """
    if unknown := [name for name in names if name not in ATTRIBUTES]:
        listed = ", ".join(ATTRIBUTES)
        raise UserError(f"data.attributes: painted faces have no {unknown[0]!r}, but {listed}")
    return tuple(ATTRIBUTES[name] for name in names or ("hair", "eyes"))


def label(parameters: Face, names: tuple[str, ...]) -> dict[str, str]:
    """Attribute -> class of a face."""
    shown = {name for name in WORN if name in parameters.worn}
    shown |= {"smile"} if parameters.mouth == "smile" else set()
    shown |= {"blush"} if parameters.blush else set()
    return {
        name: (name if name in shown else f"no {name}")
        if ATTRIBUTES[name].is_tag
        else getattr(parameters, name).replace("_", " ")
        for name in names or ("hair", "eyes")
    }


def _shade(color, factor: float):
    return tuple(
        max(0, min(255, int(c * factor + (255 * (factor - 1) if factor > 1 else 0)))) for c in color
    )


class _Canvas:
    """A turned coordinate system in units of the side, on a supersampled picture."""

    def __init__(self, parameters: Face, size: int):
        self.side = size * SCALE
        color = BACKGROUNDS[parameters.background]
        self.image = Image.new("RGB", (self.side, self.side), color)
        self.pen = ImageDraw.Draw(self.image)
        angle = math.radians(parameters.tilt)
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        self.dx, self.dy = parameters.dx, parameters.dy

    def at(self, x: float, y: float) -> tuple[float, float]:
        x, y = x - 0.5, y - 0.6
        turned = x * self.cos - y * self.sin, x * self.sin + y * self.cos
        return (turned[0] + 0.5 + self.dx) * self.side, (turned[1] + 0.6 + self.dy) * self.side

    def polygon(self, points, color) -> None:
        self.pen.polygon([self.at(*p) for p in points], fill=color)

    def ellipse(self, x, y, rx, ry, color, start=0.0, end=360.0) -> None:
        angles = np.radians(np.linspace(start, end, 40))
        self.polygon([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], color)

    def line(self, points, color, width: float) -> None:
        pixels = max(1, round(width * self.side))
        self.pen.line([self.at(*p) for p in points], color, pixels, joint="curve")


def _jaw(t: float) -> tuple[float, float]:
    """Face outline for t in [0, 1], ear to ear over a pointed chin."""
    angle = math.pi * t
    x = 0.5 - 0.27 * math.cos(angle) * (1 - 0.22 * math.sin(angle) ** 4)
    return x, 0.56 + 0.33 * math.sin(angle) ** 0.9


def _back_hair(c: _Canvas, f: Face) -> None:
    dark = _shade(HAIR[f.hair], 0.72)
    if f.style == "long":
        c.polygon([(0.15, 0.4), (0.85, 0.4), (0.93, 1.15), (0.07, 1.15)], dark)
    elif f.style == "bob":
        c.polygon([(0.14, 0.4), (0.86, 0.4), (0.88, 0.82), (0.12, 0.82)], dark)
    elif f.style == "twin_tails":
        for side in (-1, 1):
            x = 0.5 + 0.4 * side
            c.ellipse(x, 0.66, 0.12, 0.34, dark)
            c.ellipse(0.5 + 0.34 * side, 0.36, 0.05, 0.05, (225, 60, 80))
    elif f.style == "spiky":
        for i in range(9):
            a = math.radians(180 + 22.5 * i)
            tip = 0.5 + 0.5 * math.cos(a), 0.45 + 0.46 * math.sin(a)
            left = 0.5 + 0.36 * math.cos(a - 0.25), 0.45 + 0.34 * math.sin(a - 0.25)
            right = 0.5 + 0.36 * math.cos(a + 0.25), 0.45 + 0.34 * math.sin(a + 0.25)
            c.polygon([left, tip, right], HAIR[f.hair])
    c.ellipse(0.5, 0.46, 0.37, 0.38, dark)


def _front_hair(c: _Canvas, f: Face) -> None:
    color, light = HAIR[f.hair], _shade(HAIR[f.hair], 1.1)
    c.ellipse(0.5, 0.42, 0.365, 0.345, color, 180, 360)
    cuts = ((0.17, 0.36, 0.5, 0.66, 0.83), (0.17, 0.42, 0.83), (0.17, 0.3, 0.42, 0.58, 0.7, 0.83))
    cuts = cuts[f.fringe]
    for left, right in itertools.pairwise(cuts):
        middle = (left + right) / 2
        depth = 0.53 - 0.1 * abs(middle - 0.5)
        c.polygon([(left - 0.02, 0.4), (right + 0.02, 0.4), (middle, depth)], color)
    locks = {"short": 0.6, "spiky": 0.58, "bob": 0.8, "long": 0.95, "twin_tails": 0.68}
    for side in (-1, 1):
        x, low = 0.5 + 0.31 * side, locks[f.style]
        c.polygon([(x - 0.055, 0.38), (x + 0.055, 0.38), (x + 0.03 * side, low)], color)
    c.line([(0.3, 0.25), (0.42, 0.19), (0.56, 0.18)], light, 0.03)


def _eye(c: _Canvas, f: Face, x: float) -> None:
    ry = 0.088 * f.eye_open
    color = EYES[f.eyes]
    c.ellipse(x, 0.6, 0.082, ry + 0.006, (250, 250, 252))
    c.ellipse(x, 0.605, 0.06, ry, _shade(color, 0.7))
    c.ellipse(x, 0.62, 0.054, ry * 0.78, color)
    c.ellipse(x, 0.6, 0.024, ry * 0.5, (30, 26, 36))
    c.ellipse(x - 0.022, 0.57, 0.018, 0.02, (255, 255, 255))
    lash = [
        (x + 0.095 * t, 0.6 - (ry + 0.012) * math.sqrt(1 - 0.8 * t * t))
        for t in np.linspace(-1, 1, 9)
    ]
    c.line(lash, (50, 36, 44), 0.024)


def _clear_mouth(c: _Canvas, f: Face) -> None:
    dark, lip = (150, 40, 50), (120, 40, 48)
    if f.mouth == "smile":
        c.ellipse(0.5, 0.76, 0.1, 0.09, dark, 0, 180)
        c.polygon([(0.415, 0.765), (0.585, 0.765), (0.57, 0.785), (0.43, 0.785)], (255, 255, 255))
        c.line([(0.39, 0.752), (0.41, 0.76), (0.59, 0.76), (0.61, 0.752)], lip, 0.016)
    elif f.mouth == "open":
        c.ellipse(0.5, 0.79, 0.04, 0.045, dark)
    else:
        bend = {"neutral": 0.0, "sad": -0.035}[f.mouth]
        points = [(0.5 + 0.05 * t, 0.8 + bend * (1 - t * t)) for t in np.linspace(-1, 1, 9)]
        c.line(points, lip, 0.018)


def _mouth(c: _Canvas, f: Face) -> None:
    if f.clear_mouth:
        _clear_mouth(c, f)
        return
    ink = (170, 80, 80)
    if f.mouth == "open":
        c.ellipse(0.5, 0.79, 0.05, 0.038, (190, 80, 84))
        return
    bend = {"smile": 0.02, "neutral": 0.0, "sad": -0.018}[f.mouth]
    points = [(0.5 + 0.055 * t, 0.79 + bend * (1 - t * t)) for t in np.linspace(-1, 1, 9)]
    c.line(points, ink, 0.014)


def _worn(c: _Canvas, f: Face) -> None:
    if "glasses" in f.worn:
        angles = np.radians(np.linspace(0, 360, 40))
        for x in (0.36, 0.64):
            ring = [(x + 0.12 * math.cos(a), 0.605 + 0.12 * math.sin(a)) for a in angles]
            c.line(ring, (40, 40, 70), 0.016)
        c.line([(0.48, 0.6), (0.52, 0.6)], (40, 40, 70), 0.016)
    if "hat" in f.worn:
        c.ellipse(0.5, 0.3, 0.36, 0.24, (60, 130, 90), 180, 360)
        c.polygon([(0.05, 0.29), (0.95, 0.29), (0.95, 0.35), (0.05, 0.35)], (40, 95, 65))


def _landmarks(c: _Canvas, f: Face) -> np.ndarray:
    """68 points in the order of iBUG: jaw, brows, nose, eyes, mouth."""
    ring = [math.radians(a) for a in (180, 240, 300, 0, 60, 120)]
    ry = 0.088 * f.eye_open
    points = [_jaw(i / 16) for i in range(17)]
    for x in (0.36, 0.64):
        points += [(x + 0.09 * t, 0.46 + 0.02 * t * t) for t in np.linspace(-1, 1, 5)]
    points += [(0.5, y) for y in np.linspace(0.6, 0.7, 4)]
    points += [(0.5 + 0.03 * t, 0.715) for t in np.linspace(-1, 1, 5)]
    for x in (0.36, 0.64):
        points += [(x + 0.082 * math.cos(a), 0.6 + ry * math.sin(a)) for a in ring]
    wide = f.clear_mouth and f.mouth == "smile"
    lips = ((0.1, 0.05, 12), (0.085, 0.03, 8)) if wide else ((0.055, 0.03, 12), (0.04, 0.012, 8))
    for rx, height, count in lips:
        turn = [math.pi + 2 * math.pi * i / count for i in range(count)]
        points += [(0.5 + rx * math.cos(a), 0.79 + height * math.sin(a)) for a in turn]
    return np.array([c.at(*p) for p in points], np.float32) / SCALE


def draw(parameters: Face, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(size, size, 3) uint8 picture and (68, 2) float32 landmarks, x and y in pixels."""
    f, c = parameters, _Canvas(parameters, size)
    skin = SKINS[f.skin]
    _back_hair(c, f)
    c.polygon([(0.42, 0.8), (0.58, 0.8), (0.6, 1.2), (0.4, 1.2)], _shade(skin, 0.86))
    c.polygon([(0.1, 1.2), (0.36, 0.95), (0.64, 0.95), (0.9, 1.2)], (70, 80, 120))
    c.polygon([_jaw(t) for t in np.linspace(0, 1, 40)] + [(0.72, 0.35), (0.28, 0.35)], skin)
    if f.blush:
        for x in (0.31, 0.69):
            c.ellipse(x, 0.71, 0.055, 0.028, _shade((255, 170, 165), 1.0))
    for x in (0.36, 0.64):
        _eye(c, f, x)
        brow = [(x + 0.08 * t, 0.475 + 0.015 * t * t) for t in np.linspace(-1, 1, 5)]
        c.line(brow, _shade(HAIR[f.hair], 0.6), 0.012)
    c.line([(0.5, 0.7), (0.507, 0.712)], _shade(skin, 0.72), 0.012)
    _mouth(c, f)
    _front_hair(c, f)
    _worn(c, f)
    image = c.image.resize((size, size), Image.Resampling.BOX)
    return np.asarray(image), _landmarks(c, f)


def paint(seed: int, index: int, size: int = 64, names: tuple[str, ...] = ()) -> np.ndarray:
    """(size, size, 3) uint8 picture of face number `index`; names: see `face`."""
    return draw(face(seed, index, names), size)[0]
