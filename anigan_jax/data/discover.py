"""What a folder or archive holds: which members are images, their labels, boxes and domains."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from anigan_jax.data import archives, boxes, parquet, table_files, tables, words
from anigan_jax.data.attributes import Attributes, Label
from anigan_jax.data.decode import Finding
from anigan_jax.data.kinds import (
    ARCHIVES,
    FORMATS,
    JOIN,
    JOIN_ZIP,
    PICTURES,
    SUFFIXES,
    kind_of,
    visible,
)
from anigan_jax.data.table_files import Part
from anigan_jax.data.tables import Options
from anigan_jax.errors import UserError

# Files that lie beside images and are none.
BESIDE = (
    ".txt",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".md",
    ".html",
    ".htm",
    ".xml",
    ".yaml",
    ".yml",
    ".ini",
    ".db",
    ".py",
    ".ipynb",
    ".npy",
    ".npz",
    ".mat",
    ".bin",
    ".pdf",
    ".url",
    ".log",
)
# Pictures and archives of kinds that are not taken: named, not passed over.
FOREIGN = (
    ".gif",
    ".tif",
    ".tiff",
    ".heic",
    ".heif",
    ".avif",
    ".psd",
    ".svg",
    ".eps",
    ".ico",
    ".jp2",
    ".jxl",
    ".pgm",
    ".pnm",
    ".ppm",
    ".tga",
    ".exr",
    ".xcf",
    ".zip",
    ".tar",
    ".tgz",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
    ".rar",
    ".7z",
)
UNKNOWN: Label = {}
DOMAINS = {
    "traina": ("A", False),
    "trainb": ("B", False),
    "testa": ("A", True),
    "testb": ("B", True),
}
# What else holds pictures, and how they become images.
ARRAYS = (
    "In Python: anigan_jax.pack(images, 'faces', labels), then --data.path faces; or write its "
    "pictures as PNG files: PIL.Image.fromarray(a).save('0.png')"
)
CONVERT = {
    **dict.fromkeys((".npz", ".npy", ".mat", ".h5", ".hdf5", ".pkl", ".pt"), ARRAYS),
    ".mdb": "It is an LMDB; write its values as files first",
    ".lmdb": "It is an LMDB; write its values as files first",
    **dict.fromkeys(
        (".tfrecord", ".tfrecords"),
        "Give tfds:FOLDER if tensorflow-datasets prepared it; convert others to that",
    ),
    **dict.fromkeys((".001", ".partaa", ".part1"), JOIN),
    ".z01": JOIN_ZIP,
    **dict.fromkeys((".rar", ".7z", ".zst"), "Unpack it first"),
    ".arrow": "Write it as Parquet: datasets.load_from_disk(FOLDER).to_parquet('a.parquet'); "
    "of several splits, one at a time: load_from_disk(FOLDER)['train']",
    ".gif": "Write the frames as PNG files",
    ".mp4": "Write the frames as PNG files: ffmpeg -i FILE %05d.png",
}
# Of no ending of their own, or of another kind's.
KNOWN = {
    r"(data|test)_batch(_\d)?": "CIFAR: tensorflow-datasets prepares it, "
    "then give tfds:cifar10; or numpy.load(FILE, allow_pickle=True, encoding='bytes')[b'data']"
    ".reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for anigan_jax.pack(images, 'faces', labels)",
    r".*idx\d-ubyte(\.gz)?": "MNIST: tensorflow-datasets prepares it, then give tfds:mnist",
    r"\..*\.icloud": "They are in iCloud, not downloaded; download them in Finder first",
}


class Item(NamedTuple):
    """One image of a source, before it is read."""

    name: str
    """Unique in the source, with '/'."""
    member: str
    """Its name within its store."""
    store: int = 0
    domain: str = ""
    """'' or, for unpaired data, 'A' or 'B'."""
    held: bool | None = None
    """The source's own split; None: the duplicate group decides."""
    label: Label = UNKNOWN
    box: tuple[float, float, float, float] | None = None

    @property
    def whole(self) -> str:
        """The name in its source, without the domain that it was put in."""
        return self.name.removeprefix(f"{self.domain}/") if self.domain else self.name


class Catalogue(NamedTuple):
    """Items in bytes order of their names; `stores` are paths to read them from.

    Attributes:
      attributes: what the labels of the items are of; () where they have none.
      ignored: what is there and was not read, counted by ending.
    """

    items: list[Item]
    findings: list[Finding]
    stores: list
    attributes: Attributes = ()
    ignored: Mapping[str, int] = MappingProxyType({})


def survey(root: Path, options: Options, domain: str = "") -> Catalogue:
    """Lists the images of a folder or archive.

    Args:
      domain: 'A' or 'B' puts all images there and into the names; '' looks for folders
        trainA, trainB, testA and testB.

    Raises:
      UserError: nothing to train on, or label files that contradict each other.
    """
    try:
        parts, findings, beside = _open(root, options)
    finally:
        parquet.READER.end()
    names = [part.prefix + name for part in parts for name in part.images]
    if not names and not findings:
        raise UserError(_no_images(root, parts))
    told = tables.find(root, parts, beside, options, findings)
    if told is None and set(options.attributes) - {words.CLASS}:
        raise UserError(f"{root} has no labels; data.attributes can be 'class', for its folders")
    face_boxes = boxes.read(root, parts, beside, options.boxes, findings)
    domains, held = _folders(names, unpaired=not domain)
    items, aside, whole = [], 0, iter(names)
    for number, part in enumerate(parts):
        for member in part.images:
            name = next(whole)
            side, split = domain, held.get(name)
            if not domain:
                side, split = domains.get(name, ("", split))
            if domains and not side:
                aside += 1
                continue
            items.append(Item(f"{domain}/{name}" if domain else name, member, number, side, split))
    items, attributes = tables.attach(items, told, options, findings)
    items = boxes.attach(items, face_boxes, findings)
    if told is None and not options.tags and items:
        findings += tables.unread(parts, {f.file for f in findings if f.code == "silent"})
    read = {
        *(told.read if told else ()),
        *(table_files.BOX_FILES if face_boxes is not None else ()),
    }
    ignored = Counter(
        _ending(name)
        for part in parts
        for name in part.others
        if not {part.prefix + name, name.split("/")[-1]} & read
    )
    ignored += Counter({"images outside trainA and trainB": aside})
    return Catalogue(items, findings, [part.store for part in parts], attributes, ignored)


def _open(root: Path, options: Options) -> tuple[list[Part], list[Finding], Path | None]:
    """(parts, findings, folder with the files beside the store)."""
    if not root.exists():
        raise UserError(absent(str(root)))
    if _suffix(root.name) == parquet.SUFFIX and root.is_file():
        return [_parquet(root, "")], [], None
    if not root.is_dir() and not archives.is_archive(root):
        hint = _hint(root.name)
        if _suffix(root.name) in SUFFIXES:
            hint = "It is one image; give the folder that it is in"
        kinds = ", ".join((*archives.SUFFIXES, parquet.SUFFIX))
        raise UserError(f"{root} is neither a folder nor a {kinds}{hint and '. '}{hint}")
    found, findings = archives.members(root, options.follow_links)
    # What is never read is no fault: an editor's lock, an environment's links.
    findings = [finding for finding in findings if visible(finding.file)]
    if not root.is_dir():
        near = root.parent if table_files.lying_in(root.parent) else None
        return [_part(root, "", found)], findings, near
    seen = [m.name for m in found if visible(m.name)]
    shards = [name for name in seen if name.lower().endswith(archives.SUFFIXES)]
    columns = [name for name in seen if _suffix(name) == parquet.SUFFIX]
    # Beside archives, one without images lists what lies in them, as img2dataset's do.
    shards += [n for n in columns if not (shards and parquet.is_list(root / n))]
    if not shards or any(SUFFIXES.get(_suffix(name)) for name in seen):
        return [_part(root, "", found)], findings, None
    # Shards of one set, each with names of its own; the other files lie beside them.
    parts = []
    for name, prefix in zip(shards, _prefixes(shards), strict=True):
        if _suffix(name) == parquet.SUFFIX:
            parts.append(_parquet(root / name, prefix))
            continue
        packed, more = archives.members(root / name)
        findings += [finding._replace(file=prefix + finding.file) for finding in more]
        parts.append(_part(root / name, prefix, packed))
    read = {*shards, *table_files.TABLES}
    aside = [m.name for m in found if not {m.name, m.name.lower()} & read]
    parts.append(Part(root, "", [], aside, []))
    return parts, findings, root


def _prefixes(shards: list[str]) -> list[str]:
    """A folder for the members of each of several shards: its name, without its ending."""
    if len(shards) == 1:
        return [""]
    endings = sorted((*archives.SUFFIXES, parquet.SUFFIX), key=len, reverse=True)
    bare = [name[: -len(next(e for e in endings if name.lower().endswith(e)))] for name in shards]
    # a.zip beside a.tar.
    names = bare if len(set(bare)) == len(bare) else shards
    return [f"{name}/" for name in names]


def absent(path: str) -> str:
    """What is said of a source that is not there."""
    hint = "; nothing is downloaded" if re.match(r"\w{2,}:/", path) else ""
    return f"{path!r} does not exist{hint}; give a folder, zip, tar or tfds:NAME"


def _parquet(path: Path, prefix: str) -> Part:
    store, found, rows = parquet.opened(path)
    return Part(store, prefix, [member.name for member in found], [], rows)


def _part(store: Path, prefix: str, found: list[archives.Member]) -> Part:
    """Divides members into images and others, by ending and, where that says nothing, content."""
    kinds: dict[str, bool] = {}
    odd = []
    for name in (member.name for member in found):
        if visible(name) and _suffix(name) not in (*BESIDE, *SUFFIXES, *FOREIGN):
            odd.append(name)
        arrays = _suffix(name) == ".gz" and _known(name)
        kinds[name] = visible(name) and _suffix(name) not in BESIDE and not arrays
    # One that cannot be read is named as that when it is read.
    for name, head in archives.heads(store, odd) if odd else ():
        kind = "" if head is None else kind_of(head)
        # Spreadsheets and weights are ZIP archives, too; their ending says what they are.
        packed = kind in ARCHIVES and not _suffix(name)
        kinds[name] = head is None or packed or kind in (*FORMATS, *PICTURES)
    images, others = ([n for n, is_image in kinds.items() if is_image == e] for e in (True, False))
    return Part(store, prefix, images, others, [])


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _ending(name: str) -> str:
    if name.endswith(".icloud"):
        return "in iCloud, not downloaded"
    return (_suffix(name) or "without an ending") if visible(name) else "hidden"


def _known(name: str) -> str:
    """What is said of files that are known by their whole name."""
    file = name.rpartition("/")[2].lower()
    return next((said for pattern, said in KNOWN.items() if re.fullmatch(pattern, file)), "")


def _hint(name: str) -> str:
    """How a file of another kind becomes images."""
    return _known(name) or CONVERT.get(_suffix(name), "")


def _no_images(root: Path, parts: list[Part]) -> str:
    others = [name for part in parts for name in part.others]
    counts = Counter(map(_ending, others))
    there = f"; it holds {counted(counts)}" if counts else ""
    hints = dict.fromkeys(filter(None, map(_hint, others)))
    return ". ".join([f"{root} holds no images ({', '.join(SUFFIXES)}){there}", *hints])


def counted(counts: Mapping[str, int]) -> str:
    """'40 .txt, 1 hidden': what is there, the most frequent first."""
    return ", ".join(
        f"{n:,} {what}" for what, n in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    )


def _folders(images: list[str], unpaired: bool):
    """({name: (domain, held)}, {name: held}) by the names of folders.

    Args:
      unpaired: whether folders may be those of two domains.
    """
    domains, held = {}, {}
    for name in images:
        for part in (part.lower() for part in name.split("/")[:-1]):
            if unpaired and (side := re.sub("[-_ ]", "", part)) in DOMAINS:
                domains[name] = DOMAINS[side]
            if (split := table_files.split_of(part)) in table_files.HELD:
                held[name] = table_files.HELD[split]
    sides = {side for side, test in domains.values() if not test}
    if domains and sides != {"A", "B"}:
        there = f"only domain {sides.pop()} is there" if sides else "all is in testA and testB"
        raise UserError(f"{there}; unpaired data needs trainA and trainB")
    rest = [name for name in images if name not in held]
    if set(held.values()) == {True} and all("/" not in name for name in rest):
        # A folder of its own for the test, beside the rest.
        held |= dict.fromkeys(rest, False)
    if set(held.values()) != {True, False}:
        held = {}
    return domains, held


def domain_counts(items) -> Counter:
    """Images by part: '' or 'A', 'B'."""
    return Counter(item.domain for item in items)
