"""A user's own images as a data source: folder, archive, TFDS data set or pack."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from anigan_jax.data import archives, attributes, decode, discover, labels
from anigan_jax.data.decode import Crop, Decoded, Finding
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.sources import Source, _known, _left_in
from anigan_jax.errors import UserError


def _place() -> Any:
    """A field that says where something lies; a pack's SHA-256 says what it is."""
    return field(default="", metadata={"location": True})


@dataclass(frozen=True)
class Images(Source):
    """A folder, zip, tar, prepared TFDS data set or pack of images, or two of them."""

    path: str = _place()
    """Folder (searched through), .zip, .tar, tfds:NAME, or a pack made by `anigan import`."""
    path_b: str = _place()
    """The second domain of unpaired data, where it is a source of its own."""
    size: int = 64
    """Side in pixels; one antialiased resize."""
    crop: Literal["auto", "center", "pad", "box"] = "auto"
    """Centered square; all of it on white; around its face box; auto: box where there is one."""
    box_scale: float = 1.5
    """Side of a box crop in face widths."""
    tags: str = _place()
    """Label file; '': tags.csv, tags_clean.csv, label.csv or labels.csv, where there is one."""
    tag_rule: labels.Rule = "max-count"
    """Which color counts where a raw tag list has several."""
    attributes: tuple[str, ...] = field(default=(), metadata={"later": True})
    """What images are told apart by; (): the colors of the label file, or its columns. Or names
    of these, of tags (there or not), 'tags' (each of at least 1 % of the images; 'tags:0.05' of
    5 %), 'class' (the folder that an image lies in)."""
    boxes: str = _place()
    """File of face boxes; '': boxes.csv where there is one."""
    unlabeled: Literal["keep", "drop"] = "keep"
    """What becomes of images whose label leaves an attribute open, where there are labels."""
    without: tuple[str, ...] = ()
    """Combinations left out ('blue hair red eyes'), for zero-shot tests."""
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
        options = discover.Options(self.tags, self.tag_rule, self.boxes, self.attributes)
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
                attributes.merged(one.attributes, two.attributes),
                one.ignored + two.ignored,
            )
        counts = discover.domain_counts(found.items)
        if counts["A"] != counts["B"]:
            found.findings.append(Finding("", "domains", f"A {counts['A']}, B {counts['B']}"))
        if self.unlabeled == "drop" and found.attributes:
            names = {a.name for a in found.attributes}
            kept = [i for i in found.items if names <= i.label.keys()]
            if not kept:
                listed = ", ".join(names)
                raise UserError(f"no image has all of {listed}; unlabeled=drop leaves nothing")
            found = found._replace(items=kept, ignored=found.ignored + len(found.items) - len(kept))
        return _left_in(found, self.without)

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, Any]]:
        for number, store in enumerate(catalogue.stores):
            where = {
                item.member: i for i, item in enumerate(catalogue.items) if item.store == number
            }
            read = archives.read if isinstance(store, Path) else type(store).read
            for member, data in read(store, where):
                yield where[member], data

    def make(self, item: Item, payload: bytes) -> Decoded:
        mode = "box" if self.crop == "auto" else self.crop
        suffix = Path(item.member).suffix
        return decode.decode(payload, Crop(self.size, mode, item.box, self.box_scale), suffix)


def _survey(path: str, options: discover.Options, domain: str = "") -> Catalogue:
    if path.startswith("tfds:"):
        from anigan_jax.data import tfds_source

        return tfds_source.survey(path.removeprefix("tfds:"), domain, options.attributes)
    return discover.survey(Path(path), options, domain)


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
        beside = [root.parent / n for n in discover.TAG_FILES + discover.BOX_FILES]
        files = [(p.name, p) for p in (root, *beside) if p.is_file()]
    elif root.is_dir():
        files = [(m.name, root / m.name) for m in archives.members(root)[0]]
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
