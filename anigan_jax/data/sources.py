"""Where images come from, as settings: painted faces, or anything a user has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from anigan_jax.data import archive, decode, layouts, tags
from anigan_jax.data.decode import Crop, Decoded, Finding
from anigan_jax.data.layouts import Catalogue, Item
from anigan_jax.errors import UserError


@dataclass(frozen=True)
class Source:
    """Base of data settings; images are square RGB of `size` pixels."""

    path = ""
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

    def make(self, item: Item, payload) -> Decoded:
        """Pixels of an image; raises Refusal. Runs in worker processes."""
        raise NotImplementedError


@dataclass(frozen=True)
class PaintedFaces(Source):
    """Faces drawn by our own code: no licence, no download, exact tags."""

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
    """Pairs of colours left out ('blue hair red eyes'), for zero-shot tests."""

    def key(self) -> dict:
        from anigan_jax.data import painted

        if not 0 <= self.test < 1:
            raise UserError(f"data.test is {self.test}; it must be at least 0 and below 1")
        return _known({"source": "painted", "version": painted.VERSION, **asdict(self)})

    def catalogue(self) -> Catalogue:
        from anigan_jax.data import painted

        if self.count < 1:
            raise UserError(f"data.count is {self.count}; it must be at least 1")
        width = len(str(self.count - 1))
        items = []
        for i in range(self.count):
            face, name = painted.face(self.seed, i), f"{i:0{width}}"
            held = None if self.test else False
            items.append(Item(name, name, held=held, label=tags.Label(face.hair, face.eyes)))
        return _left_in(Catalogue(items, [], [], labelled=True), self.without)

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, None]]:
        yield from ((i, None) for i in range(len(catalogue.items)))

    def make(self, item: Item, payload) -> Decoded:
        from anigan_jax.data import painted

        return Decoded(painted.paint(self.seed, int(item.member), self.size), [])


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
        from anigan_jax.data import painted, painted_photo

        for name in ("count", "pairs"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} is {getattr(self, name)}; it must be at least 1")
        if self.size < 8:
            raise UserError(f"data.size is {self.size}; it must be at least 8")
        versions = {"version": painted.VERSION, "photo_version": painted_photo.VERSION}
        return {"source": "painted_pairs", **versions, **asdict(self)}

    def catalogue(self) -> Catalogue:
        from anigan_jax.data import painted

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
                label = tags.Label(face.hair, face.eyes)
                items.append(Item(f"{domain}/{number}", number, 0, domain, held, label))
        return Catalogue(items, [], [], labelled=True)

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, None]]:
        yield from ((i, None) for i in range(len(catalogue.items)))

    def make(self, item: Item, payload) -> Decoded:
        from anigan_jax.data import painted, painted_photo

        painter = painted_photo if item.domain == "A" else painted
        return Decoded(painter.paint(self.seed, int(item.member), self.size), [])


@dataclass(frozen=True)
class Images(Source):
    """A folder, zip, tar, prepared TFDS data set or pack of images, or two of them."""

    path: str = ""
    """Folder (searched through), .zip, .tar, tfds:NAME, or a pack made by `anigan import`."""
    path_b: str = ""
    """The second domain of unpaired data, where it is a source of its own."""
    size: int = 64
    """Side in pixels; one antialiased resize."""
    crop: Literal["auto", "centre", "pad", "box"] = "auto"
    """Centred square; all of it on white; around its face box; auto: box where there is one."""
    box_scale: float = 1.5
    """Side of a box crop in face widths."""
    tags: str = ""
    """Label file; '': tags.csv, tags_clean.csv, label.csv or labels.csv, where there is one."""
    tag_rule: tags.Rule = "max-count"
    """Which colour counts where a raw tag list has several."""
    boxes: str = ""
    """File of face boxes; '': boxes.csv where there is one."""
    unlabelled: Literal["keep", "drop"] = "keep"
    """What becomes of images without both colours, where there are labels."""
    without: tuple[str, ...] = ()
    """Pairs of colours left out ('blue hair red eyes'), for zero-shot tests."""
    test: float = 0.1
    """Share held out, whole groups of duplicates at a time, where the source has no split."""
    policy: Literal["error", "skip"] = "error"
    """What a faulty file does: stop with a list of all, or be left out and counted."""
    edges: bool = False
    """Also pack edge-smoothed images (CartoonGAN)."""

    def check(self) -> None:
        """Refuses settings that mean nothing."""
        if self.size < 8:
            raise UserError(f"data.size is {self.size}; it must be at least 8")
        if not 0 <= self.test < 1:
            raise UserError(f"data.test is {self.test}; it must be at least 0 and below 1")
        if not 1 <= self.box_scale <= 10:
            raise UserError(f"data.box_scale is {self.box_scale}; it must be 1 to 10")
        if not self.path:
            raise UserError("data.path is empty; say where the images are: --data.path FOLDER")

    def key(self) -> dict:
        self.check()
        settings = asdict(self)
        tables = ("tags", "boxes")
        contents = {
            name: _digest(settings.pop(name), name in tables)
            for name in ("path", "path_b", *tables)
        }
        return _known({"source": "images", "version": decode.VERSION, **settings, **contents})

    def catalogue(self) -> Catalogue:
        self.check()
        options = layouts.Options(self.tags, self.tag_rule, self.boxes)
        if not self.path_b:
            found = _survey(self.path, options)
        else:
            one, two = (
                _survey(path, options, side)
                for path, side in ((self.path, "A"), (self.path_b, "B"))
            )
            found = Catalogue(
                one.items + [item._replace(store=1) for item in two.items],
                one.findings + two.findings,
                one.stores + two.stores,
                one.labelled or two.labelled,
                one.ignored + two.ignored,
            )
        counts = layouts.domain_counts(found.items)
        if counts["A"] != counts["B"]:
            found.findings.append(Finding("", "domains", f"A {counts['A']}, B {counts['B']}"))
        if self.unlabelled == "drop" and found.labelled:
            kept = [i for i in found.items if i.label.hair and i.label.eyes]
            if not kept:
                raise UserError("no image has both colours; nothing is left with unlabelled=drop")
            found = found._replace(items=kept, ignored=found.ignored + len(found.items) - len(kept))
        return _left_in(found, self.without)

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, Any]]:
        for number, store in enumerate(catalogue.stores):
            where = {
                item.member: i for i, item in enumerate(catalogue.items) if item.store == number
            }
            read = archive.read if isinstance(store, Path) else type(store).read
            for member, data in read(store, where):
                yield where[member], data

    def make(self, item: Item, payload: bytes) -> Decoded:
        mode = "box" if self.crop == "auto" else self.crop
        suffix = Path(item.member).suffix
        return decode.decode(payload, Crop(self.size, mode, item.box, self.box_scale), suffix)


def _known(key: dict) -> dict:
    """The key as JSON has it; a later setting that says nothing is no part of it.

    So that packs from before it stay good.
    """
    without = list(key.pop("without"))
    return {**key, "without": without} if without else key


def _left_in(found: Catalogue, without: tuple[str, ...]) -> Catalogue:
    """The catalogue without some pairs of colours."""
    if not without:
        return found
    pairs = set()
    for text in without:
        try:
            pairs.add(tags.parse_caption(text))
            if None in tags.parse_caption(text):
                raise ValueError(f"{text!r} names one part; a pair is 'blue hair red eyes'")
        except ValueError as error:
            raise UserError(f"data.without: {error}") from None
    kept = [item for item in found.items if item.label not in pairs]
    if not kept:
        raise UserError("no image is left by data.without")
    return found._replace(items=kept, ignored=found.ignored + len(found.items) - len(kept))


def _survey(path: str, options: layouts.Options, domain: str = "") -> Catalogue:
    if path.startswith("tfds:"):
        from anigan_jax.data import tfds_source

        return tfds_source.survey(path.removeprefix("tfds:"), domain)
    return layouts.survey(Path(path), options, domain)


def _digest(path: str, table: bool = False) -> str:
    """SHA-256 of a file, or of the names and contents of a folder."""
    if not path:
        return ""
    if table and not Path(path).is_file():
        return path  # a file inside the source, which is hashed with it
    if path.startswith("tfds:"):
        from anigan_jax.data import tfds_source

        return tfds_source.digest(path.removeprefix("tfds:"))
    root = Path(path)
    if root.is_file():
        beside = [root.parent / n for n in layouts.TAG_FILES + layouts.BOX_FILES]
        files = [(p.name, p) for p in (root, *beside) if p.is_file()]
    elif root.is_dir():
        files = [(m.name, root / m.name) for m in archive.members(root)[0]]
    else:
        raise UserError(f"{path!r} does not exist; give a folder, zip, tar or tfds:NAME")
    digest = hashlib.sha256()
    for name, file in files:
        try:
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            content = error.strerror or "unreadable"
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
