"""Where images come from: the interface of every data source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anigan_jax.data import captions
from anigan_jax.data.decode import Decoded
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.errors import UserError


@dataclass(frozen=True)
class Source:
    """Base of data settings; images are square, of `size` pixels, RGB or RGBA."""

    path = ""
    size = 0
    channels = 3
    policy = "error"
    test = 0.0
    without = ()
    edges = False
    twins = True
    """Whether mirrored and near images are looked for."""
    drawn = False
    """Whether our own code draws the images: no file can make it die or hang."""

    def key(self) -> dict:
        """What identifies the pixels and labels (JSON)."""
        raise NotImplementedError

    def catalogue(self) -> Catalogue:
        """Lists the images without decoding them."""
        raise NotImplementedError

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, Any]]:
        """(index of the item, what `make` needs) in any order; a Finding where unreadable."""
        raise NotImplementedError

    def unread(self, pack: Any) -> str:
        """What of these settings a pack that is the source itself does not follow, or ''."""
        return ""

    def make(self, item: Item, payload) -> Decoded:
        """Pixels of an image; raises Refusal. Runs in worker processes."""
        raise NotImplementedError


LATER = ("without", "also", "attributes")


def _known(key: dict) -> dict:
    """The key as JSON has it; a later setting that says nothing is no part of it.

    So that packs from before it stay good.
    """
    kept = {name: value for name, value in key.items() if name not in LATER or value}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}


def _left_in(found: Catalogue, without: tuple[str, ...]) -> Catalogue:
    """The catalogue without the images that have all classes of one of some texts."""
    if not without:
        return found
    if not found.attributes:
        raise UserError("data.without leaves out images by their labels, and these have none")
    combined = []
    for text in without:
        try:
            asked = captions.parse_prompt(text, found.attributes)
            if asked.passed_over:
                raise ValueError("; ".join(asked.passed_over))
            if len(asked.label) < 2:
                raise ValueError(f"{text!r} names one part; a pair is 'blue hair red eyes'")
        except ValueError as error:
            raise UserError(f"data.without: {error}") from None
        combined.append(asked.label.items())
    kept = [i for i in found.items if not any(each <= i.label.items() for each in combined)]
    if not kept:
        raise UserError("no image is left by data.without")
    return left_out(found, kept, "left out by data.without")


def left_out(found: Catalogue, kept: list[Item], why: str) -> Catalogue:
    """The catalogue with the kept items alone; the others are counted."""
    gone = Counter({why: len(found.items) - len(kept)})
    return found._replace(items=kept, ignored=Counter(found.ignored) + gone)
