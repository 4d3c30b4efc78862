"""Fonts that have the letters of labels: Pillow's own, matplotlib's, or one of the system."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from pathlib import Path

from PIL import ImageFont

from anigan_jax.errors import printable


def font(size: int, texts: Iterable[str]) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of `size` pixels that has all letters of the texts, as far as one here has them.

    Pillow's own has ASCII alone; matplotlib's DejaVu Sans European letters; the rest, such as
    Japanese, is up to the system's fonts. What none has is shown as boxes, which a warning says.
    """
    letters = frozenset(c for text in texts for c in text if not c.isspace())
    if all(c.isascii() for c in letters):
        return ImageFont.load_default(size=size)
    return ImageFont.truetype(_file(letters), size=size)


@functools.cache
def _file(letters: frozenset[str]) -> str:
    """The first font that has the letters, or DejaVu Sans."""
    # Imported here: matplotlib takes longer to start than the command line.
    from matplotlib import font_manager

    wanted = set(map(ord, letters))
    always = font_manager.findfont("DejaVu Sans")
    # Upright ones of plain weight first, then by name, so that the choice is the machine's alone.
    system = font_manager.findSystemFonts()
    system.sort(key=lambda path: ("Regular" not in Path(path).name, Path(path).name))
    for path in (always, *system):
        try:
            if wanted <= font_manager.get_font(path).get_charmap().keys():
                return path
        except (OSError, RuntimeError):  # pictures of letters, or a broken file
            continue
    missing = wanted - font_manager.get_font(always).get_charmap().keys()
    some = printable("".join(sorted(map(chr, missing))[:12]))
    print(
        f"warning: no font of this machine has all of {some}: pictures show boxes in their place; "
        "install one that has them, such as Noto Sans CJK (Debian: fonts-noto-cjk)",
        file=sys.stderr,
        flush=True,
    )
    return always
