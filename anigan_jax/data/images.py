"""A user's own images as a data source: folder, archive, TFDS data set or pack."""

from __future__ import annotations

import functools
import glob
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import ImageColor

from anigan_jax.data import (
    archives,
    attributes,
    decode,
    discover,
    labels,
    parquet,
    remembered,
    table_files,
    words,
)
from anigan_jax.data.decode import Crop, Decoded, Finding
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.sources import Source, _known, _left_in, left_out
from anigan_jax.errors import UserError


def _place(default: Any = "") -> Any:
    """A field that says where something lies; a pack's SHA-256 says what it is."""
    return field(default=default, metadata={"location": True})


# What the images of a pack were made with, so that no training changes it.
_FIXED = ("crop", "box_scale", "background", "upscale", "tag_rule", "test")


@dataclass(frozen=True)
class Images(Source):
    """A folder, zip, tar, prepared TFDS data set or pack of images, or two of them."""

    path: str = _place()
    """Folder (searched through), .zip, .tar, .parquet, tfds:NAME, or a pack made by
    `anigan import`; a pattern (faces_*) joins all that fit it."""
    path_b: str = _place()
    """The second domain of unpaired data, if it is a separate source."""
    size: int = 64
    """Side in pixels; images are resized once, antialiased."""
    also: tuple[str, ...] = _place(())
    """More sources whose images join those of `path` in one set."""
    domain: Literal["ask", "a", "b", "both"] = _place("ask")
    """Of data with two domains, the one to train on, or both as one set."""
    follow_links: str = _place()
    """A folder: links in the source are followed if they lead into it."""
    crop: Literal["auto", "center", "top", "pad", "box"] = "auto"
    """center, top: a square there; pad: all of it, on the background; box: around the face box;
    auto: box if there is one, else center."""
    box_scale: float = 1.5
    """Side of a box crop, in face widths."""
    background: str = field(default="white", metadata={"later": True})
    """Color that transparent pictures are laid over and padded ones surrounded with: a name
    (black) or '#rrggbb'."""
    transparency: Literal["lay over", "keep"] = field(default="lay over", metadata={"later": True})
    """keep: RGBA images, which a GAN from noise or from words then makes (avatars, sprites)."""
    upscale: decode.Upscale = field(default="limited", metadata={"later": True})
    """Pictures smaller than `size`: limited refuses those under half; smooth enlarges all;
    nearest does too, without blur (sprites)."""
    tags: str = _place()
    """Label file; '': found by its name (tags.csv, metadata.jsonl, dataset.json, ...), or texts
    beside the images; none: no labels are read."""
    tag_rule: labels.Rule = "max-count"
    """Which color counts where a raw tag list has several."""
    attributes: tuple[str, ...] = field(default=(), metadata={"later": True})
    """What images are told apart by; (): the colors of the label file, or its columns. Or names
    of these, of tags (there or not), 'tags' (each on at least 1 % of the images; 'tags:0.05': on
    5 %), 'class' (the folder that an image is in)."""
    boxes: str = _place()
    """File of face boxes; '': boxes.csv if there is one."""
    unlabeled: Literal["keep", "drop"] = "keep"
    """What to do with images whose label gives no class for an attribute."""
    without: tuple[str, ...] = ()
    """Combinations left out ('blue hair red eyes'), for zero-shot tests."""
    test: float = 0.1
    """Share held out, in whole groups of duplicates, if the source has no split."""
    policy: Literal["error", "skip"] = "error"
    """What to do about faulty files: stop with a list of all, or leave out and count them."""
    edges: bool = False
    """Also pack edge-smoothed images (CartoonGAN)."""

    @property
    def channels(self) -> int:  # type: ignore[override]
        return 4 if self.transparency == "keep" else 3

    def check(self) -> None:
        """Refuses settings that mean nothing."""
        if self.size < 8:
            raise UserError(f"data.size is {self.size}; it must be at least 8")
        if not 0 <= self.test < 1:
            raise UserError(f"data.test is {self.test}; it must be at least 0 and below 1")
        if not 1 <= self.box_scale <= 10:
            raise UserError(f"data.box_scale is {self.box_scale}; it must be 1 to 10")
        try:
            ImageColor.getcolor(self.background, "RGB")
        except ValueError:
            raise UserError(
                f"data.background is {self.background!r}; it must be a color: white, '#80c0ff'"
            ) from None
        if self.edges and self.channels == 4:
            raise UserError("data.edges is for CartoonGAN, which takes no transparent images")
        if not self.path:
            raise UserError("data.path is empty; say where the images are: --data.path FOLDER")

    def key(self) -> dict:
        self.check()
        settings = asdict(self)
        # A view of the finished pack, and what the names of the files tell already.
        del settings["domain"], settings["follow_links"]
        # So that packs from before these settings stay good.
        for name in ("background", "transparency", "upscale"):
            if settings[name] == getattr(Images, name):
                del settings[name]
        joined, other = self._places()
        for name in ("tags", "boxes"):
            settings[name] = self._table(settings[name], [*joined, other])
        settings["path"] = self._digest(joined[0])
        settings["also"] = [self._digest(place) for place in joined[1:]]
        settings["path_b"] = self._digest(other)
        return _known({"source": "images", "version": decode.VERSION, **settings})

    def unread(self, pack: Any) -> str:
        if pack.path != Path(self.path).expanduser():
            return ""
        made = {name: pack.manifest["key"].get(name, getattr(Images, name)) for name in _FIXED}
        odd = [n for n in _FIXED if getattr(self, n) not in (getattr(Images, n), made[n])]
        odd += [name for name in ("tags", "boxes") if getattr(self, name)]
        if not odd:
            return ""
        told = ", ".join(f"data.{name} {getattr(self, name)}" for name in odd)
        flags = " ".join(f"--{name.replace('_', '-')} {getattr(self, name)}" for name in odd)
        return (
            f"{told} changes nothing: the pack {pack.path} is used as it was imported; import "
            f"again with {flags}"
        )

    def _places(self) -> tuple[list[str], str]:
        """The sources that are joined, and that of the second domain."""
        joined = [place for given in (self.path, *self.also) for place in places(given)]
        other = places(self.path_b) if self.path_b else [""]
        if len(other) > 1:
            raise UserError(f"data.path_b is one source; {self.path_b!r} matches {len(other)}")
        return joined, other[0]

    def _digest(self, path: str) -> str:
        return digest(path, self.follow_links, around=not self.tags)

    def _table(self, given: str, roots: list[str]) -> str:
        """What a table is known by: its content; its name, where it lies in the source."""
        if given in ("", "none"):
            return given
        found = dict.fromkeys(table_files.outside(Path(root), given) for root in roots if root)
        told = (digest(str(path)) if path else given for path in found)
        return " ".join(dict.fromkeys(told))

    def catalogue(self) -> Catalogue:
        self.check()
        wanted = tuple(map(words.plain, self.attributes))
        options = discover.Options(self.tags, self.tag_rule, self.boxes, self.follow_links, wanted)
        joined, other = self._places()
        names = _distinct(joined) if len(joined) > 1 else [""]
        sources = [
            _within(name, _survey(path, options, "A" if other else ""))
            for name, path in zip(names, joined, strict=True)
        ]
        if other:
            sources.append(_survey(other, options, "B"))
        found = _joined(sources)
        counts = discover.domain_counts(found.items)
        if counts["A"] != counts["B"]:
            found.findings.append(Finding("", "domains", f"A {counts['A']}, B {counts['B']}"))
        if self.unlabeled == "drop" and found.attributes:
            names = {a.name for a in found.attributes}
            kept = [i for i in found.items if names <= i.label.keys()]
            if not kept:
                listed = ", ".join(a.name for a in found.attributes)
                raise UserError(f"no image has all of {listed}; unlabeled=drop leaves nothing")
            found = left_out(found, kept, "without a class of every attribute")
        return _left_in(found, self.without)

    def payloads(self, catalogue: Catalogue) -> Iterator[tuple[int, Any]]:
        # A store at a time: of millions of images the names are most of the memory.
        runs = itertools.groupby(enumerate(catalogue.items), key=lambda pair: pair[1].store)
        try:
            for number, run in runs:
                store, where = catalogue.stores[number], {item.member: i for i, item in run}
                read = archives.read if isinstance(store, Path) else type(store).read
                for member, data in read(store, where):
                    yield where[member], data
        finally:
            parquet.READER.end()

    def make(self, item: Item, payload: bytes) -> Decoded:
        mode = "box" if self.crop == "auto" else self.crop
        suffix = Path(item.member).suffix
        ways = (self.box_scale, self.background, self.upscale, self.channels == 4)
        return decode.decode(payload, Crop(self.size, mode, item.box, *ways), suffix)


def places(path: str) -> list[str]:
    """The sources that a user's words name: `~` is the home, a pattern all that fit it.

    Raises:
      UserError: nothing fits the pattern.
    """
    if path.startswith("tfds:"):
        return [path]
    path = str(Path(path).expanduser()) if path.startswith("~") else path
    if Path(path).exists() or not glob.has_magic(path):
        return [path]
    # Not Path.glob, which takes no absolute pattern.
    found = sorted(glob.glob(path), key=archives.in_bytes)  # noqa: PTH207
    if not found:
        raise UserError(f"nothing matches the pattern {path!r}")
    return found


def _distinct(paths: list[str]) -> list[str]:
    """A short name for each of several sources, by which their images are told apart."""
    stems = [Path(path).name for path in paths]
    return [s if stems.count(s) == 1 else f"{s}-{i}" for i, s in enumerate(stems, start=1)]


def _within(name: str, found: Catalogue) -> Catalogue:
    """The catalogue with its images named within a folder; '' leaves them as they are."""
    if not name:
        return found

    def inside(item: Item) -> Item:
        side = f"{item.domain}/" if item.domain and item.name.startswith(f"{item.domain}/") else ""
        return item._replace(name=f"{side}{name}/{item.name.removeprefix(side)}")

    findings = [f._replace(file=f"{name}/{f.file}") for f in found.findings]
    return found._replace(items=[inside(item) for item in found.items], findings=findings)


def _joined(found: list[Catalogue]) -> Catalogue:
    items, stores = [], []
    for one in found:
        items += [item._replace(store=item.store + len(stores)) for item in one.items]
        stores += one.stores
    sides = {bool(item.domain) for item in items}
    if len(sides) > 1:
        raise UserError("some of the joined sources have two domains and some one")
    findings = [finding for one in found for finding in one.findings]
    if any(one.attributes for one in found):
        without = (one for one in found if not one.attributes)
        findings += [Finding(item.name, "no label") for one in without for item in one.items]
    ignored = sum((Counter(one.ignored) for one in found), Counter())
    told = functools.reduce(attributes.merged, (one.attributes for one in found))
    return Catalogue(items, findings, stores, told, ignored)


def _survey(path: str, options: discover.Options, domain: str = "") -> Catalogue:
    if path.startswith("tfds:"):
        from anigan_jax.data import tfds_source

        return tfds_source.survey(path.removeprefix("tfds:"), domain, options)
    return discover.survey(Path(path), options, domain)


def digest(path: str, within: str = "", *, around: bool = True) -> str:
    """SHA-256 of a file, or of the names and contents of a folder.

    Once hashed, a source is known by the size and the time of change of its files.

    Args:
      within: as `archives.members` takes it.
      around: whether a table beside a folder may be of it.
    """
    if not path:
        return path
    if path.startswith("tfds:"):
        from anigan_jax.data import tfds_source

        return tfds_source.digest(path.removeprefix("tfds:"))
    root = Path(path)
    if root.is_file():
        names = [
            root.name,
            *(path.name for path in table_files.lying_in(root.parent) if path != root),
        ]
        return remembered.sha256(root, [archives.Member(n, 0) for n in names], root.parent)
    if root.is_dir():
        members = archives.members(root, within)[0]
        own = remembered.sha256(root, members, root)
        parent = table_files.parent_of(root)
        names = {member.name.rpartition("/")[2].lower() for member in members}
        if not around or parent is None or names & {*table_files.LABEL_FILES}:
            return own
        # A table beside the folder may be of it.
        found = table_files.near(table_files.listed(parent), table_files.LABEL_FILES)
        if not found:
            return own
        aside = [archives.Member(path.name, 0) for path in found]
        told = remembered.sha256(found[0], aside, parent)
        return hashlib.sha256(f"{own}{told}".encode()).hexdigest()
    raise UserError(f"{discover.absent(path)} (to train: --data.path)")
