"""What a folder or archive holds: which members are images, their labels, boxes and domains."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from anigan_jax.data import archives, labels
from anigan_jax.data.attributes import Attribute, Attributes, Label
from anigan_jax.data.decode import SUFFIXES, Finding, kind_of
from anigan_jax.errors import UserError

TAG_FILES = ("tags.csv", "tags_clean.csv", "label.csv", "labels.csv")
BOX_FILES = ("boxes.csv",)
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
    ".zip",
    ".tar",
    ".gz",
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
HELD = {"train": False, "test": True, "val": True, "valid": True, "validation": True}


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


class Catalogue(NamedTuple):
    """Items in bytes order of their names; `stores` are paths to read them from."""

    items: list[Item]
    findings: list[Finding]
    stores: list
    attributes: Attributes = ()
    """What the labels of the items are of; () where they have none."""
    ignored: int = 0


class Options(NamedTuple):
    """What a user may say about a layout; empty strings: found by name."""

    tags: str = ""
    tag_rule: labels.Rule = "max-count"
    boxes: str = ""
    attributes: tuple[str, ...] = ()


def survey(root: Path, options: Options, domain: str = "") -> Catalogue:
    """Lists the images of a folder or archive.

    Args:
      domain: 'A' or 'B' puts all images there and into the names; '' looks for folders
        trainA, trainB, testA and testB.

    Raises:
      UserError: nothing to train on, or label files that contradict each other.
    """
    store, found, findings, beside = _open(root)
    images, others = [], []
    for member in found:
        (images if _is_candidate(member.name) else others).append(member.name)
    images = [n for n in images if _maybe(store, n)]
    if not images and not findings:
        raise UserError(f"{root} holds no images ({', '.join(SUFFIXES)})")
    table = _labels(root, store, beside, others, options, findings)
    if table is None and set(options.attributes) - {labels.CLASS}:
        raise UserError(f"{root} has no label file; data.attributes can be 'class', of its folders")
    boxes = read_boxes(root, store, beside, others, options)
    domains, held = _folders(images)
    items = []
    for name in images:
        side, split = (
            (domain, held.get(name)) if domain else domains.get(name, ("", held.get(name)))
        )
        if domains and not domain and not side:
            continue
        items.append(Item(f"{domain}/{name}" if domain else name, name, 0, side, split))
    attributes: Attributes = table.attributes if table else ()
    items = _with_labels(items, table, findings)
    if labels.CLASS in options.attributes:
        items, attributes = _with_folders(items, attributes, options.attributes)
    items = with_boxes(items, boxes, findings)
    return Catalogue(items, findings, [store], attributes, len(found) - len(items))


def _with_folders(items: list[Item], attributes: Attributes, wanted: tuple[str, ...]):
    """The items with the folder that each lies in as its 'class', in its place among `wanted`."""
    named = []
    for item in items:
        folders = [f for f in item.member.split("/")[:-1] if f.lower() not in {*HELD, *DOMAINS}]
        own = {labels.CLASS: labels.plain(folders[-1])} if folders else {}
        named.append(item._replace(label={**item.label, **own}))
    classes = {c for item in named if (c := item.label.get(labels.CLASS))}
    if len(classes) < 2:
        raise UserError("data.attributes 'class' needs images in two or more folders, one a class")
    at = min(wanted.index(labels.CLASS), len(attributes))
    own_attribute = Attribute(labels.CLASS, tuple(sorted(classes)))
    return named, (*attributes[:at], own_attribute, *attributes[at:])


def _open(root: Path):
    """(store, members, findings, folder with the files beside it)."""
    if not root.exists():
        raise UserError(f"{str(root)!r} does not exist; give a folder, zip, tar or tfds:NAME")
    if not root.is_dir() and not archives.is_archive(root):
        raise UserError(f"{root} is neither a folder nor a {', '.join(archives.SUFFIXES)}")
    found, findings = archives.members(root)
    if not root.is_dir():
        return root, found, findings, root.parent if _has_table(root.parent) else None
    inner = [m.name for m in found if archives.is_archive(Path(m.name))]
    if any(SUFFIXES.get(_suffix(m.name)) for m in found) or len(inner) != 1:
        return root, found, findings, None
    store = root / inner[0]
    packed, more = archives.members(store)
    return store, packed, findings + more, root


def _has_table(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TAG_FILES + BOX_FILES)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_candidate(name: str) -> bool:
    parts = name.split("/")
    hidden = any(p.startswith("__MACOSX") or (p.startswith(".") and p != ".") for p in parts)
    return not hidden and parts[-1] != "Thumbs.db" and _suffix(name) not in BESIDE


def _maybe(store: Path, name: str) -> bool:
    """Whether a file of any other suffix, or none, begins like a picture or an archive."""
    if _suffix(name) in (*SUFFIXES, *FOREIGN):
        return True
    if not store.is_dir():
        return False
    try:
        with (store / name).open("rb") as file:
            return bool(kind_of(file.read(32)))
    except OSError:
        return True  # named as unreadable when it is read


def _folders(images: list[str]):
    """({name: (domain, held)}, {name: held}) by the names of folders."""
    domains, held = {}, {}
    for name in images:
        folders = [part.lower() for part in name.split("/")[:-1]]
        for part in folders:
            if part in DOMAINS:
                domains[name] = DOMAINS[part]
            if part in HELD:
                held[name] = HELD[part]
    sides = {side for side, _ in domains.values()}
    if sides and sides != {"A", "B"}:
        raise UserError(
            f"domain {sides.pop()} is there alone; unpaired data needs trainA and trainB"
        )
    if set(held.values()) != {True, False}:
        held = {}
    return domains, held


def _text(root: Path, store: Path, beside: Path | None, inside: list[str], names, given: str):
    """(text, its name) of the one table of a kind, or (None, '')."""
    if given:
        tried = [Path(given), (beside or root) / given]
        path = next((p for p in tried if p.is_file()), None)
        if path is None:
            raise UserError(f"the file {given!r} does not exist")
        return _decode(path.read_bytes()), str(path)
    hits = [n for n in inside if PurePosixPath(n).name in names]
    if beside:
        near = [n for n in names if (beside / n).is_file()]
        if len(near) + len(hits) == 1 and near:
            path = beside / near[0]
            return _decode(path.read_bytes()), str(path)
        hits += near
    if not hits:
        return None, ""
    if len(hits) > 1:
        raise UserError(
            f"{root} holds several tables: {', '.join(hits)}; name one (--tags, --boxes)"
        )
    ((_, data),) = archives.read(store, hits)
    if isinstance(data, Finding):
        raise UserError(f"{root}: {data}")
    return _decode(data), hits[0]


def _decode(table: bytes) -> str:
    # Whatever the locale; spreadsheets begin a table with a byte order mark.
    return table.decode("utf-8-sig", "replace")


def _labels(root, store, beside, inside, options: Options, findings) -> labels.Table | None:
    text, where = _text(root, store, beside, inside, TAG_FILES, options.tags)
    if text is None:
        return None
    table = labels.read_table(text, where, options.tag_rule, options.attributes)
    for key, code, detail in table.faults:
        findings.append(Finding(f"{Path(where).name}: {key}", code, detail))
    return table


def _key(name: str) -> str:
    return PurePosixPath(name).stem


def _with_labels(items: list[Item], table, findings) -> list[Item]:
    if table is None:
        return items
    # Labels are by ID, or by path where IDs repeat in several folders.
    named, used, rows = [], set(), set(table.labels) | {key for key, *_ in table.faults}
    for item in items:
        whole = item.member
        path = PurePosixPath(whole)
        keys = (whole, str(path.with_suffix("")), path.name, _key(whole))
        key = next((k for k in keys if k in table.labels), None)
        if key is None:
            if not set(keys) & rows:
                findings.append(Finding(item.name, "no label"))
            named.append(item)
            continue
        used.add(key)
        label = table.labels[key]
        if gone := [a.name for a in table.attributes if a.name not in label]:
            findings.append(Finding(item.name, "unlabeled", f"no {' and no '.join(gone)}"))
        named.append(item._replace(label=label))
    findings += [Finding(key, "no image", "a label") for key in table.labels if key not in used]
    return named


def read_boxes(root, store, beside, inside, options: Options) -> dict | None:
    """Face boxes x, y, w, h by file of the table in, beside or named for a source; or None.

    Args:
      inside: names of the files within `store`; beside: a folder that may hold the table.

    Raises:
      UserError: no such table, several, or one that is no table of boxes.
    """
    text, where = _text(root, store, beside, inside, BOX_FILES, options.boxes)
    if text is None:
        return None
    reader = csv.DictReader(io.StringIO(text))
    wanted = {"file", "x", "y", "w", "h"}
    if not wanted <= set(reader.fieldnames or ()):
        raise UserError(f"{where}: its first line must name the columns file,x,y,w,h")
    boxes = {}
    for number, row in enumerate(reader, start=2):
        try:
            boxes[row["file"]] = tuple(float(row[k]) for k in ("x", "y", "w", "h"))
        except (TypeError, ValueError):
            raise UserError(f"{where}, line {number}: x, y, w and h must be numbers") from None
    return boxes


def with_boxes(items: list[Item], boxes: dict | None, findings) -> list[Item]:
    """The items with their boxes; what has no partner is added to `findings`."""
    if boxes is None:
        return items
    named, used = [], set()
    for item in items:
        key = item.member if item.member in boxes else PurePosixPath(item.member).name
        if key not in boxes:
            findings.append(Finding(item.name, "no box"))
        used.add(key)
        named.append(item._replace(box=boxes.get(key)))
    findings += [Finding(key, "no image", "a box") for key in boxes if key not in used]
    return named


def domain_counts(items) -> Counter:
    """Images by part: '' or 'A', 'B'."""
    return Counter(item.domain for item in items)
