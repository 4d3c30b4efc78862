"""Import once, read fast: images as uint8 memory maps with a manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anigan_jax.data import archives, edges, ingest, pack_files, remembered
from anigan_jax.data import attributes as known
from anigan_jax.data.attributes import DEFAULT, PARTS, Attribute, Attributes
from anigan_jax.data.ingest import Scan
from anigan_jax.data.scratch import temporary
from anigan_jax.data.sources import Source
from anigan_jax.errors import UserError
from anigan_jax.runtime.disk import sync

SCHEMA = 2
LISTED = 20


class Pack(NamedTuple):
    """`images` (N, size, size, 3 or 4) uint8 read-only map of the (first) training part."""

    images: np.ndarray
    manifest: dict
    path: Path
    source: str = ""
    """What the user named where the pack lies in the cache."""

    @property
    def shown(self) -> str:
        """How messages name it: as the user did."""
        return self.source or str(self.path)

    def has(self, part: str) -> bool:
        """Whether there is a part 'train' or 'test', of one domain or of two."""
        return bool({part, f"{part}A"} & set(self.manifest["parts"]))

    def named(self, part: str, domain: str = "A") -> str:
        """The full name of 'train' or 'test': that of a domain where there are two."""
        return part if part in self.manifest["parts"] else f"{part}{domain}"

    def first(self, part: str) -> np.ndarray:
        """Pixels of a part 'train' or 'test'; of domain A where there are two."""
        return self.part(self.named(part))

    def part(self, name: str, what: str = "pixels") -> np.ndarray:
        """Rows of a part: 'train', 'test', or 'trainA', 'trainB', 'testA', 'testB'.

        Args:
          what: 'pixels', 'edges' (edge-smoothed pixels) or 'landmarks' (N, 68, 2).

        Raises:
          UserError: the pack has no such part or array.
        """
        if name not in self.manifest["parts"]:
            have = ", ".join(self.manifest["parts"])
            raise UserError(f"{self.shown} has no part {name!r}; it has {have}")
        start, stop = self.manifest["parts"][name]
        if what == "pixels" and start == 0 and stop == len(self.images):
            return self.images
        return _array(self.path, self.manifest, what)[start:stop]

    @property
    def attributes(self) -> Attributes:
        """What its images are told apart by, where they have labels."""
        return tuple(Attribute(n, tuple(c)) for n, c in self.manifest["classes"].items())

    @property
    def labeled(self) -> bool:
        """Whether its images have labels, of whatever attributes."""
        return any(column(a.name) in self.examples() for a in self.attributes[:1])

    def labels(self, part: str) -> np.ndarray:
        """(N, A) int32 class indices of a part, of hair and eyes for most; -1 where unknown.

        Raises:
          UserError: the pack has no such part, or no labels.
        """
        count, columns = len(self.part(part)), self.examples()
        names = [column(a.name) for a in self.attributes]
        if not self.labeled:
            why = pack_files.unlabeled(self.manifest) or "give --data.tags FILE"
            raise UserError(f"the images of {self.shown} have no labels; {why}")
        start, _ = self.manifest["parts"][part]
        rows = np.array([columns[name] for name in names], np.int32).T
        return rows[start : start + count]

    @property
    def paired(self) -> bool:
        """Whether row i of testA and row i of testB show the same face (painted pairs)."""
        parts = self.manifest["parts"]
        rows = {stop - start for name, (start, stop) in parts.items() if name.startswith("test")}
        # A held-out picture that equals a training picture is left out, alone.
        return self.manifest["key"].get("source") == "painted_pairs" and len(rows) == 1

    def examples(self) -> dict:
        """Columns over all rows: names, groups, and by `column` class indices, -1 unknown."""
        return json.loads((self.path / "examples.json").read_text())


def column(name: str) -> str:
    """Where an attribute stands among the columns of a pack, apart from 'names' and 'groups'."""
    return name if name in PARTS else f"label/{name}"


def is_pack(path: Path) -> bool:
    """Whether a folder is a pack by its manifest."""
    return (path / "manifest.json").is_file() and (path / "pixels.bin").is_file()


def build(
    source: Source, cache: Path, *, workers: int = ingest.WORKERS, report: Callable | None = None
):
    """The pack of a source: itself if it is one, or from the cache, or newly made.

    Args:
      report: called with (images done, images in all).

    Raises:
      UserError: no data, or faulty files under policy 'error', all listed.
    """
    refuse_pack_of_two(source)
    pack = _built(source, cache, workers, report)
    if pack.path.parent == cache and source.path:
        pack = pack._replace(source=source.path)
    return of_domain(pack, getattr(source, "domain", "ask"))


def _built(source: Source, cache: Path, workers: int, report: Callable | None) -> Pack:
    path = Path(source.path).expanduser()
    if source.path and is_pack(path):
        pack = open_pack(path)
        if pack.manifest["size"] != source.size:
            raise UserError(
                f"the pack {path} holds {pack.manifest['size']}-px images, but data.size is "
                f"{source.size}; import again with --size {source.size}, or train at the pack's"
            )
        if (channels := pack.images.shape[-1]) != source.channels:
            raise UserError(
                f"the pack {path} holds images of {channels} channels, but data.transparency asks "
                f"for {source.channels}; import again, with --transparency keep for 4"
            )
        _as_imported(source, pack)
        return pack
    key = source.key()
    final = cache / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    if final.exists():
        try:
            return open_pack(final)
        except UserError:
            shutil.rmtree(final)
    _make(source, key, final, workers, report)
    return open_pack(final)


def refuse_pack_of_two(source: Source) -> None:
    """Refuses a pack where one of two domains should be."""
    others = [getattr(source, "path_b", ""), *getattr(source, "also", ())]
    for path in filter(None, (any(others) and source.path, *others)):
        if is_pack(Path(path).expanduser()):
            raise UserError(
                f"{path} is a pack, which holds all of a data set; pack two domains together: "
                "anigan import SOURCE SOURCE_B --out PACK (several of one domain: import SOURCE "
                "--also SOURCE_2), then --data.path PACK alone"
            )


def of_domain(pack: Pack, domain: str) -> Pack:
    """A pack of two domains as one of 'a', 'b' or 'both' alone; 'ask' leaves it as it is."""
    parts = pack.manifest["parts"]
    if domain == "ask":
        return pack
    if "trainA" not in parts:
        raise UserError(f"data.domain is {domain!r}, but {pack.shown} has one domain")
    sides = "AB" if domain == "both" else domain.upper()
    # The domains of a part lie side by side.
    spans = {
        name: [parts[f"{name}{side}"] for side in sides if f"{name}{side}" in parts]
        for name in ("train", "test")
    }
    kept = {name: [found[0][0], found[-1][1]] for name, found in spans.items() if found}
    digest = hashlib.sha256(f"{pack.manifest['sha256']} {domain}".encode()).hexdigest()
    manifest = {**pack.manifest, "parts": kept, "sha256": digest}
    start, stop = kept["train"]
    return pack._replace(
        images=_array(pack.path, manifest, "pixels")[start:stop], manifest=manifest
    )


def _as_imported(source: Source, pack: Pack) -> None:
    """Refuses a choice of images that a finished pack cannot follow any more."""
    attributes = getattr(source, "attributes", ())
    if attributes and list(attributes) != pack.manifest["key"].get("attributes"):
        raise UserError(
            f"the pack {pack.path} was imported with {', '.join(pack.manifest['classes'])}; "
            f"import again with --attributes {' '.join(map(repr, attributes))}"
        )
    without = sorted(pack.manifest["key"].get("without", ()))
    if source.without and sorted(source.without) != without:
        raise UserError(
            f"the pack {pack.path} was imported without {without or 'leaving out a pair'}; "
            f"import again with --without {' '.join(map(repr, source.without))}"
        )


def import_to(
    source: Source,
    out: Path,
    *,
    overwrite: bool = False,
    workers: int = ingest.WORKERS,
    report: Callable | None = None,
    landmarks: Callable | None = None,
) -> tuple[Pack, bool]:
    """Makes a pack at a place of the user's.

    Args:
      landmarks: (N, H, W, 3) uint8 -> (N, 68, 2) pixels, to be packed for the images
        of domain A, or of all where there are no domains.

    Returns:
      The pack, and whether it was there already, from the same data and settings.
    """
    refuse_pack_of_two(source)
    key = {**source.key(), "landmarks": landmarks is not None}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not is_pack(out):
            raise UserError(f"{out} exists and is not a pack; use another --out")
        try:
            pack = open_pack(out)
            verify(pack)
            if pack.manifest["key"] == key:
                return pack, True
            reason = "other data or settings"
        except UserError as error:
            reason = str(error)
        if not overwrite:
            raise UserError(f"{out} holds a pack already ({reason}); --overwrite replaces it")
    _make(source, key, out, workers, report, landmarks, replace=True)
    return open_pack(out), False


def _make(source, key, final: Path, workers, report, landmarks=None, replace=False) -> None:
    with temporary(final.parent, final.name) as temp:
        try:
            found = ingest.scan(source, temp, workers=workers, report=report)
            refuse(source.policy, found)
            made = temp / "pack"
            made.mkdir()
            _write(source, key, made, found, landmarks)
            _place(made, final, temp, replace)
        except OSError as error:
            raise UserError(f"the pack {final} cannot be written: {error}") from None


def _place(made: Path, final: Path, temp: Path, replace: bool) -> None:
    if replace and final.exists():
        final.rename(temp / "old")
    try:
        made.rename(final)
    except OSError:
        # Another process built the same pack meanwhile.
        if not is_pack(final):
            raise
    sync(final.parent)


def refuse(policy: str, found: Scan) -> None:
    """Raises UserError where the policy or an empty result forbids to go on."""
    bad = found.faults
    listed = "; ".join(map(str, bad[:LISTED]))
    listed += f" (and {len(bad) - LISTED} more)" if len(bad) > LISTED else ""
    if bad and policy == "error":
        raise UserError(
            f"{len(bad)} {'file' if len(bad) == 1 else 'files'} cannot be used: {listed}. "
            "Fix them, or leave them out with policy skip; `anigan check` lists all"
        )
    if not any(found.parts[i].startswith("train") for i in found.order):
        of, why = len(found.catalogue.items), listed or "all are held out"
        raise UserError(f"none of {of} images can be used to train: {why}")


def _write(source: Source, key: dict, folder: Path, found: Scan, landmarks) -> None:
    files = {"pixels.bin": pack_files.rows(folder / "pixels.bin", found)}
    if source.edges:
        files["edges.bin"] = pack_files.rows(folder / "edges.bin", found, edges.smooth_edges)
    parts: dict[str, list[int]] = {}
    for position, row in enumerate(found.order):
        span = parts.setdefault(found.parts[row], [position, position])
        span[1] = position + 1
    if landmarks:
        files["landmarks.npy"] = pack_files.landmarks(folder, found, parts, landmarks)
    # A group is named by its first row in the pack.
    first: dict[int, int] = {}
    for position, row in enumerate(found.order):
        first.setdefault(int(found.groups[row]), position)
    examples = {
        "names": [found.items[i].name for i in found.order],
        "groups": [first[int(found.groups[row])] for row in found.order],
        **_class_columns(found),
    }
    files["examples.json"] = pack_files.as_json(folder / "examples.json", examples)
    attributes = found.catalogue.attributes
    classes = {name: list(names) for name, names in attributes or DEFAULT}
    # The columns hold indices: other classes are other labels.
    hashed = files if (attributes or DEFAULT) == DEFAULT else {**files, "classes": classes}
    pack_files.as_json(
        folder / "manifest.json",
        {
            "schema": SCHEMA,
            "key": key,
            "count": len(found.order),
            "size": source.size,
            "channels": source.channels,
            "parts": parts,
            "classes": classes,
            "files": files,
            "sha256": hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest(),
            "ignored": dict(found.catalogue.ignored),
            "counts": dict(Counter(f.code for f in found.findings)),
            "refused": [list(f) for f in found.findings if f.refused],
        },
    )


def _class_columns(found: Scan) -> dict[str, list[int]]:
    """Class index of each attribute for each used row; -1 where unknown; {} without labels."""
    attributes = found.catalogue.attributes
    rows = known.rows(attributes, (found.items[i].label for i in found.order))
    return {column(a.name): rows[:, i].tolist() for i, a in enumerate(attributes)}


def _array(path: Path, manifest: dict, what: str) -> np.ndarray:
    size = manifest["size"]
    shape = manifest["count"], size, size, manifest.get("channels", 3)
    if what == "landmarks":
        name, missing = "landmarks.npy", "import again with --landmarks"
    else:
        name, missing = f"{what}.bin", "import again with --edges"
    if name not in manifest["files"]:
        raise UserError(f"the pack {path} holds no {what}; {missing}")
    try:
        if what == "landmarks":
            return np.load(path / name, mmap_mode="r", allow_pickle=False)
        array = np.memmap(path / name, np.uint8, "r", shape=shape)
        if (path / name).stat().st_size != array.nbytes:
            raise ValueError(f"{name} has the wrong size")
    except (OSError, ValueError) as error:
        raise UserError(f"the data pack {path} is damaged: {error}") from None
    return array


def open_pack(path: Path) -> Pack:
    """Opens a pack; its sizes must be what the manifest says."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["schema"] != SCHEMA:
            raise ValueError(f"schema {manifest['schema']} is not {SCHEMA}; import again")
        first = next(name for name in manifest["parts"] if name.startswith("train"))
        start, stop = manifest["parts"][first]
        images = _array(path, manifest, "pixels")[start:stop]
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"the data pack {path} is damaged: {error}") from None
    return Pack(images, manifest, path)


def verify(pack: Pack, again: bool = True) -> None:
    """Raises UserError where a file is not what was written.

    Args:
      again: hash them, whatever is known; else those that have changed since they were hashed.
    """
    wanted = pack.manifest["files"]
    if not again:
        files = [archives.Member(name, 0) for name in wanted]
        lines = "".join(f"{name}\0{digest}\n" for name, digest in wanted.items())
        if (
            remembered.sha256(pack.path, files, pack.path)
            == hashlib.sha256(lines.encode()).hexdigest()
        ):
            return
    for name, digest in wanted.items():
        try:
            with (pack.path / name).open("rb") as file:
                got = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"the data pack {pack.path} is damaged: {error}") from None
        if got != digest:
            raise UserError(
                f"the data pack {pack.path} is damaged: {name} changed; delete it and run again"
            )
