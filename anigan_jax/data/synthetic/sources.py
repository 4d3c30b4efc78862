"""Painted faces as data sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from anigan_jax.data.decode import Decoded
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.sources import Source, _known, _left_in
from anigan_jax.errors import UserError


@dataclass(frozen=True)
class PaintedFaces(Source):
    """Faces drawn by our own code: no license, no download, exact tags."""

    # Drawn from few parameters, painted faces resemble each other without being copies.
    twins = False
    drawn = True
    count: int = 4096
    """Number of faces."""
    seed: int = 0
    """Seed of the faces."""
    size: int = 64
    """Side in pixels."""
    test: float = 0.0
    """Share held out."""
    without: tuple[str, ...] = ()
    """Combinations left out ('blue hair red eyes'), for zero-shot tests."""
    attributes: tuple[str, ...] = field(default=(), metadata={"later": True})
    """What faces are told apart by: hair, eyes, style, mouth, blush, smile, glasses, hat; (): hair
    and eyes. Glasses and hats are drawn only if named; mouths are drawn large if they or smiles
    are."""

    def key(self) -> dict:
        from anigan_jax.data.synthetic import painted

        if not 0 <= self.test < 1:
            raise UserError(f"data.test is {self.test}; it must be at least 0 and below 1")
        versions = {"version": painted.VERSION}
        versions |= {"named_version": painted.NAMED_VERSION} if self.attributes else {}
        return _known({"source": "painted", **versions, **asdict(self)})

    def catalogue(self) -> Catalogue:
        from anigan_jax.data.synthetic import painted

        if self.count < 1:
            raise UserError(f"data.count is {self.count}; it must be at least 1")
        attributes = painted.attributes(self.attributes)
        width = len(str(self.count - 1))
        items = []
        for i in range(self.count):
            face, name = painted.face(self.seed, i, self.attributes), f"{i:0{width}}"
            held = None if self.test else False
            label = painted.label(face, self.attributes)
            items.append(Item(name, name, held=held, label=label))
        return _left_in(Catalogue(items, [], [], attributes), self.without)

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, None]]:
        yield from ((i, None) for i in range(len(catalogue.items)))

    def make(self, item: Item, payload) -> Decoded:
        from anigan_jax.data.synthetic import painted

        pixels = painted.paint(self.seed, int(item.member), self.size, self.attributes)
        return Decoded(pixels, [])


@dataclass(frozen=True)
class PaintedPairs(Source):
    """Photo-like faces (domain A) and anime faces (B) of other people, to be translated.

    Held out are faces drawn in both styles, row by row: the truth that no unpaired set has.
    """

    twins = False
    drawn = True
    count: int = 4096
    """Number of faces to train on in each domain; no face is in both."""
    seed: int = 0
    """Seed of the faces."""
    size: int = 64
    """Side in pixels."""
    pairs: int = 256
    """Number of faces held out, each drawn in both styles."""
    edges: bool = False
    """Also pack edge-smoothed images (CartoonGAN)."""

    def key(self) -> dict:
        from anigan_jax.data.synthetic import painted, photo

        for name in ("count", "pairs"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; it must be at least 1")
        if self.size < 8:
            raise UserError(f"data.size is {self.size}; it must be at least 8")
        versions = {"version": painted.VERSION, "photo_version": photo.VERSION}
        return {"source": "painted_pairs", **versions, **asdict(self)}

    def catalogue(self) -> Catalogue:
        from anigan_jax.data.synthetic import painted

        last = 2 * self.count + self.pairs
        parts = (
            ("A", False, range(self.count)),
            ("A", True, range(2 * self.count, last)),
            ("B", False, range(self.count, 2 * self.count)),
            ("B", True, range(2 * self.count, last)),
        )
        items = []
        for domain, held, indices in parts:
            for i in indices:
                # Rows are ordered by name: equal numbers stand in equal rows of both parts.
                number, face = f"{i:0{len(str(last - 1))}}", painted.face(self.seed, i)
                label = painted.label(face, ())
                items.append(Item(f"{domain}/{number}", number, 0, domain, held, label))
        return Catalogue(items, [], [], painted.attributes(()))

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, None]]:
        yield from ((i, None) for i in range(len(catalogue.items)))

    def make(self, item: Item, payload) -> Decoded:
        from anigan_jax.data.synthetic import painted, photo

        painter = photo if item.domain == "A" else painted
        return Decoded(painter.paint(self.seed, int(item.member), self.size), [])
