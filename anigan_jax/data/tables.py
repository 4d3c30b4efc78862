"""What says something of images: label files, texts beside them, folders as classes, boxes."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from anigan_jax.data import archives, label_files, labels, table_files
from anigan_jax.data.attributes import Attribute, Attributes
from anigan_jax.data.decode import Finding
from anigan_jax.data.label_fields import of_fields, of_text
from anigan_jax.data.label_text import encoding, of_bytes, of_unicode
from anigan_jax.data.matching import forms, match, plain_path
from anigan_jax.data.rows import Row, Rows
from anigan_jax.data.table_files import (
    BOX_FILES,
    SPLITS,
    WORDS,
    Part,
    parted,
    placed,
    split_of,
    splits,
)
from anigan_jax.data.words import CLASS, names_color, plain
from anigan_jax.errors import UserError

# Texts of one image each, by ending; the first that there is.
SIDECARS = (".txt", ".caption", ".json", ".cls")
# Files that may be tables of labels.
POSSIBLE = re.compile(
    r"\.(csv|tsv|jsonl|xlsx?|ods)$|(label|tag|caption|annot|attr|metadata)[^/]*(/[^/]*)?\.(txt|json|parquet)$",
    re.IGNORECASE,
)
FEWEST = 0.1
"""Share of the images that must find a label: with fewer, the file is of other images."""


class OtherLabels(UserError):
    """A label file that is of other images: a check that fails."""

    code = 1


class Options(NamedTuple):
    """What a user may say about a layout; empty strings: found by name."""

    tags: str = ""
    """A label file; 'none': none is read."""
    tag_rule: labels.Rule = "max-count"
    boxes: str = ""
    follow_links: str = ""
    attributes: tuple[str, ...] = ()


class Told(NamedTuple):
    """What is known of the images.

    Attributes:
      where: the file or layout that says it.
      rows: (name or id of an image, row).
      read: names of members that were read for it.
      faults: what was wrong in the files.
      certain: whether the keys are names of images of the source.
    """

    where: str
    rows: Rows
    read: set[str]
    faults: list[Finding]
    certain: bool = False


def find(
    root: Path, parts: list[Part], beside: Path | None, options: Options, findings: list[Finding]
) -> Told | None:
    """The labels of a source: of a file, of the store itself, of texts beside, of folders.

    Args:
      findings: where a file that was found and says nothing is noted.

    Raises:
      UserError: several label files, or one that cannot be read.
    """
    if options.tags == "none":
        return None
    files = table_files.files(root, parts, beside, options.tags)
    own = bool(files)
    try:
        if files and (told := _read(files, _images(parts))).rows:
            return told._replace(read={*told.read, *(_inside(root, name) for name in told.read)})
    except label_files.NoLabels as error:
        if options.tags:
            raise
        findings.append(Finding(error.where, "silent"))
    inner = Rows((part.prefix + key, row) for part in parts for key, row in part.rows)
    if inner:
        return Told("the columns of the Parquet file", inner, set(), [], True)
    texts = _sidecars(parts)
    if texts and len(set(texts.rows.names())) < FEWEST * len(_images(parts)):
        # Of the others they say nothing.
        findings.append(Finding(texts.where, "silent"))
        texts = None
    return texts or (None if own else _of_parent(root, parts)) or _folders(parts)


def _of_parent(root: Path, parts: list[Part]) -> Told | None:
    """The table beside a folder of images, where it is of them."""
    aside = table_files.parent_of(root) if root.is_dir() else None
    try:
        files = table_files.files(root, [], aside, "") if aside else []
        told = _read(files, _images(parts)) if files else None
    except (UserError, OSError):
        # It is of something else.
        return None
    if aside is None or told is None:
        return None
    names = [part.prefix + name for part in parts for name in part.images]
    here = os.path.basename(os.path.abspath(root))  # noqa: PTH100, PTH119 - '.' has a name
    others: dict[str, bool] = {}

    def elsewhere(key: str) -> bool:
        """Whether it names a file of another folder beside this one."""
        first = plain_path(key).partition("/")[0]
        if "/" not in plain_path(key) or first == here:
            return False
        return others.setdefault(first, (aside / first).is_dir())

    keys = {key for key in told.rows.names() if not elsewhere(key)}
    fits = match(names, keys)
    fewest = max(1, FEWEST * len(names))
    return told._replace(rows=told.rows.of(keys)) if len(fits) >= fewest else None


def _read(files: list[tuple[str, str, bytes]], images: list[str]) -> Told:
    rows, faults, names = Rows(), [], [where for where, _, _ in files]
    while files:
        # Of a file of millions of rows, bytes, text and rows are not in memory together.
        where, folder, data = files.pop(0)
        text = of_bytes(data, where, images)
        del data
        try:
            found = label_files.read(text, where, images)
        except label_files.NoLabels:
            if not (files or rows):
                raise
            faults.append(Finding(where, "silent"))
            continue
        del text
        rows.extend((placed(folder, key), row) for key, row in found.rows if key)
        faults += [Finding(f"{Path(where).name}: {key}", *rest) for key, *rest in found.faults]
    return Told(", ".join(names), rows, set(names), faults)


def _inside(root: Path, name: str) -> str:
    """The name in a folder of a file that was named by its path."""
    path, folder = Path(name).resolve(), root.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name


def _images(parts: list[Part]) -> list[str]:
    return [*itertools.chain.from_iterable(part.images for part in parts)]


def _sidecars(parts: list[Part]) -> Told | None:
    """Texts of single images, `1.txt` beside `1.png`, where a tenth of the images has one."""
    rows, read, faults = Rows(), set(), []
    for part in parts:
        beside: dict[str, str] = {}
        for end in reversed(SIDECARS):
            # '1.txt' and '1.png.txt'; later ones count.
            texts = (name for name in part.others if name.lower().endswith(end))
            beside |= {name[: -len(end)]: name for name in texts}
        if not beside:
            continue
        owners = _owners(part.images, beside)
        if len(owners) < max(1, FEWEST * len(part.images)):
            continue
        legacy: dict[str, bytes] = {}
        for name, data in archives.read(part.store, sorted(owners)):
            read.add(part.prefix + name)
            if isinstance(data, Finding):
                continue
            if (text := of_unicode(data)) is None:
                legacy[name] = data
            else:
                rows.extend(_told_by(part, name, owners[name], text))
        try:
            # Of one hand: a few letters alone do not tell an encoding.
            code = encoding([*legacy.values()]) if legacy else ""
        except UserError as error:
            code = "utf-8"
            faults.append(Finding(next(iter(legacy)), "bad row", str(error)))
        for name, data in legacy.items():
            rows.extend(_told_by(part, name, owners[name], data.decode(code, "replace")))
    return Told("the texts beside the images", rows, read, faults, True) if rows else None


def _owners(images: list[str], beside: dict[str, str]) -> dict[str, list[str]]:
    """Text -> the images that it is of: those that lie beside it, else those that alone fit.

    Args:
      beside: name of a text without its ending -> the text.
    """
    found: dict[str, list[str]] = {}
    for name, key in match(images, beside).items():
        found.setdefault(beside[key], []).append(name)
    own: dict[str, list[str]] = {}
    for name in images:
        stem = name[: -len(suffix)] if (suffix := PurePosixPath(name).suffix) else name
        # '1.png.txt' before '1.txt'.
        if key := next((key for key in (name, stem) if key in beside), None):
            own.setdefault(beside[key], []).append(name)
    return {**found, **own} or _samples(images, beside)


def _samples(images: list[str], beside: dict[str, str]) -> dict[str, list[str]]:
    """As WebDataset names the files of a sample: alike up to the first dot, '7.face.jpg'."""

    def key(name: str) -> str:
        folder, mark, file = name.rpartition("/")
        return folder + mark + file.split(".")[0]

    texts = {key(stem): text for stem, text in beside.items()}
    found: dict[str, list[str]] = {}
    for name in images:
        if text := texts.get(key(name)):
            found.setdefault(text, []).append(name)
    return found


def _told_by(part: Part, text: str, images: list[str], said: str) -> list[tuple[str, Row]]:
    row = _of_sidecar(PurePosixPath(text).suffix.lower(), said)
    return [(part.prefix + image, row) for image in images] if row else []


def _of_sidecar(ending: str, text: str) -> Row:
    if ending == ".json":
        try:
            record = json.loads(text)
            return of_fields(record)[1] if isinstance(record, dict) else Row()
        except (ValueError, RecursionError):
            return Row()
    if ending == ".cls" or text.strip().isdecimal():
        return Row(classes={CLASS: text.strip()})
    # Numbers alone, '6.1e-05' too, are boxes and the like.
    words = any(map(str.isalpha, re.sub(r"(?<=\d)e[-+]?\d|\bnan\b", "", text)))
    return of_text(text) if words else Row()


def _folders(parts: list[Part]) -> Told | None:
    """What the names of folders say of colors, 'blue_hair', where they say any."""
    names = [part.prefix + name for part in parts for name in part.images]
    rows = Rows((name, Row(folder)) for name in names if (folder := _folder(name)))
    colored = any(map(names_color, {row.text for _, row in rows}))
    return Told("", rows, set(), [], True) if colored else None


def _folder(name: str, split: bool = True) -> str:
    """The folder that an image lies in; '' where there is none.

    Args:
      split: whether folders named as one are that, and no class.
    """
    folders = reversed(name.split("/")[:-1])
    return next((f for f in folders if not split or split_of(f) not in SPLITS), "")


def _class_folders(names: list[str]) -> dict[str, str]:
    """Name -> the folder that is its class: the innermost that is not the same for all; 'train'
    beside others too, where no folder lies in it."""
    folders = {name.rpartition("/")[0] for name in names}
    around = {outer.as_posix() for folder in folders for outer in PurePosixPath(folder).parents}
    outer = {name: name for name in names}
    split = parted(names) or any(split_of(f.rpartition("/")[2]) in SPLITS for f in around)
    while True:
        found = {name: _folder(path, split) for name, path in outer.items()}
        if len(set(found.values())) != 1 or not all(found.values()):
            return found
        outer = {name: path.rpartition("/")[0] for name, path in outer.items()}


def attach(
    items: list, told: Told | None, options: Options, findings: list[Finding]
) -> tuple[list, Attributes]:
    """(items with their labels, the attributes); what does not fit goes to `findings`.

    Raises:
      OtherLabels: under a tenth of the images find a row.
      UserError: there is no attribute that is asked for.
    """
    attributes: Attributes = ()
    if told is not None and items:
        findings += told.faults
        names, keys = [item.whole for item in items], dict.fromkeys(told.rows.names())
        fits = {n: n for n in names if n in keys} if told.certain else match(names, keys)
        if len(fits) < FEWEST * len(items) and told.where:
            raise OtherLabels(_of_others(told, names, fits))
        items, attributes = _labeled(items, told, fits, options, findings)
    if told is None and not options.attributes and not options.tags:
        findings += _unasked(items)
    if CLASS in options.attributes and CLASS not in dict(attributes):
        return _with_folders(items, attributes, options.attributes)
    return items, attributes


def unread(parts: list[Part], told: set[str]) -> list[Finding]:
    """A note of the files that may hold labels by their ending or name, where none are read.

    Args:
      told: those that are noted already.
    """
    names = [part.prefix + name for part in parts for name in part.others if name[:1] != "."]
    names = [n for n in names if POSSIBLE.search(n) and n not in told]
    names = [n for n in names if PurePosixPath(n).name not in BOX_FILES]
    return [Finding("", "tables", ", ".join(names))] if 0 < len(names) <= WORDS else []


def _unasked(items: list) -> list[Finding]:
    """A note of the folders that would be classes, where there are several."""
    counts = Counter(_folder(item.member) for item in items if not item.domain)
    del counts[""]
    return [Finding("", "folders", _words(counts))] if len(counts) > 1 else []


def _with_folders(items: list, attributes: Attributes, wanted: tuple[str, ...]):
    """The items with the folder that each lies in as its 'class', in its place among `wanted`."""
    named, folders = [], _class_folders([item.whole for item in items])
    for item in items:
        folder = plain(folders[item.whole])
        named.append(item._replace(label={**item.label, CLASS: folder}) if folder else item)
    classes = {item.label[CLASS] for item in named if CLASS in item.label}
    if len(classes) < 2:
        raise UserError("data.attributes 'class' needs two or more image folders, one per class")
    at = min(wanted.index(CLASS), len(attributes))
    own = Attribute(CLASS, tuple(sorted(classes)))
    return named, (*attributes[:at], own, *attributes[at:])


def _of_others(told: Told, names: list[str], fits: dict) -> str:
    used = set(fits.values())
    keys = [*told.rows.names()]
    key = next((key for key in keys if key not in used), keys[0])
    faults = f" {len(told.faults)} rows cannot be read ({told.faults[0]})." if told.faults else ""
    name = next(name for name in names if name not in fits)
    return (
        f"{told.where} is for other images: {len(fits)} of {len(names)} have a row in it.{faults} "
        f"Rows are named {key!r}, images {name!r}; --tags FILE names another file, --tags none "
        "reads none"
    )


def _labeled(items: list, told: Told, fits: dict, options: Options, findings: list[Finding]):
    used, where = set(fits.values()), Path(told.where).name
    # Of the images that are there: a table of millions has classes that none of them shows.
    rows, held = splits(told.rows.of(used), options.attributes)
    if held:
        each = ((item, fits.get(item.whole)) for item in items)
        items = [item._replace(held=held.get(key, item.held)) for item, key in each]
    table = labels.table(rows, where or "what folders say", options.tag_rule, options.attributes)
    if table.scores:
        findings.append(Finding(where, "scores", f"{table.scores} columns"))
    if not any(table.labels.values()):
        # 'class' may be of folders.
        if told.where and CLASS not in options.attributes:
            findings.append(Finding(where, "no attribute", _words(table.passed_over)))
        return items, ()
    findings += [Finding(f"{where}: {key}", "conflict", what) for key, what in table.conflicts]
    if table.passed_over:
        findings.append(Finding(where, "unknown tag", _words(table.passed_over)))
    faulty = {finding.file.partition(": ")[2] for finding in told.faults}
    named, open_ones = [], {}
    for item in items:
        key = fits.get(item.whole)
        if key is None:
            if not set(forms(item.whole)) & faulty:
                findings.append(Finding(item.name, "no label"))
            named.append(item)
            continue
        label = table.labels[key]
        if len(label) < len(table.attributes):
            gone = tuple(a.name for a in table.attributes if a.name not in label)
            said = open_ones.setdefault(gone, f"no {' and no '.join(gone)}")
            findings.append(Finding(item.name, "unlabeled", said))
        named.append(item._replace(label=label))
    unused = dict.fromkeys(key for key in told.rows.names() if key not in used)
    findings += [Finding(key, "no image", "a label") for key in unused]
    return named, table.attributes


def _words(passed_over: Counter[str]) -> str:
    listed = [f"{word} {count}" for word, count in passed_over.most_common(WORDS)]
    more = len(passed_over) - WORDS
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")
