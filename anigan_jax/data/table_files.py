"""Which files hold labels and boxes of a source: found by name, in or beside it, or named."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from anigan_jax.data import archives
from anigan_jax.data.decode import Finding
from anigan_jax.data.kinds import visible
from anigan_jax.data.matching import plain_path
from anigan_jax.data.rows import Row, Rows
from anigan_jax.data.words import plain
from anigan_jax.errors import UserError

# Groups of label files by name; the first group of which there is one is read.
TAG_FILES = (
    *("tags.csv", "tags_clean.csv", "label.csv", "labels.csv"),
    *("tags.tsv", "labels.tsv", "captions.csv", "captions.tsv"),
)
METADATA = ("metadata.jsonl", "metadata.csv")
OTHERS = (
    *("dataset.json", "list_attr_celeba.txt", "list_attr_celeba.csv"),
    *("captions.txt", "captions.json", "captions.jsonl", "metadata.tsv"),
)
LABEL_FILES = (*TAG_FILES, *METADATA, *OTHERS)
BOX_FILES = ("boxes.csv",)
TABLES = (*LABEL_FILES, *BOX_FILES)
# Names of splits, and whether they are held out.
HELD = {
    # Karpathy's "restval" is for training too.
    **dict.fromkeys(("train", "training", "restval"), False),
    **dict.fromkeys(("test", "testing", "val", "valid", "validation", "dev", "eval"), True),
    **dict.fromkeys(("publictest", "privatetest"), True),  # FER's
}
DOMAINS = ("traina", "trainb", "testa", "testb")
SPLITS = (*HELD, *DOMAINS)
# Columns that may say a split.
SPLIT_COLUMNS = ("split", "subset", "partition", "fold", "set", "usage")
KNOWN = 0.9
"""Share of the rows that must say a split."""
# CelebA's list: 0 trains, 1 validates, 2 tests.
PARTITION = {"0": False, "1": True, "2": True}
MOST_BYTES = 2**30
"""Of a label file."""
WORDS = 8
"""Unknown words that a message lists."""


class Part(NamedTuple):
    """Members of one store; `prefix` makes their names unique in a source of several."""

    store: Any
    prefix: str
    images: list[str]
    others: list[str]
    rows: Iterable[tuple[str, Row]]
    """What the store itself says of its images."""


def parent_of(folder: Path) -> Path | None:
    """The folder around one, however that is spelled: '.' has one, too."""
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay
    return whole.parent if whole.parent != whole else None


def listed(folder: Path | None) -> dict[str, Path]:
    """The tables that may lie in a folder, by their names in lower case."""
    if folder is None:
        return {}
    try:
        # Of several letter cases the lower one, which is sorted last.
        there = sorted(os.listdir(folder))
        return {name.lower(): folder / name for name in there if name.lower() in TABLES}
    except OSError:
        # It may be one that cannot be listed.
        return {name: folder / name for name in TABLES}


def lying_in(folder: Path) -> list[Path]:
    """The tables of labels and boxes that lie in a folder."""
    return near(listed(folder), TABLES)


def near(there: dict[str, Path], names: Iterable[str]) -> list[Path]:
    """The files that have one of these names, in whatever letter case."""
    # Not Path.is_file, which raises where a link leads into what is closed.
    return [there[n] for n in names if n in there and os.path.isfile(there[n])]  # noqa: PTH113


def files(root, parts, beside, given: str) -> list[tuple[str, str, bytes]]:
    """(name, folder that its file names are in, bytes) of the label files to be read."""
    if given:
        where, data = given_file(root, parts, given)
        return [(where, "", data)]
    there = listed(beside)
    for group in (TAG_FILES, METADATA, *((name,) for name in OTHERS)):
        inside = named(parts, group)
        aside = near(there, group)
        hits = [*(path.name for path in aside), *(f"{p.prefix}{name}" for p, name in inside)]
        folders = Counter(PurePosixPath(hit).parent for hit in hits)
        one_each = max(folders.values(), default=0) < 2 and (group != TAG_FILES or _apart(hits))
        if len(hits) > 1 and not one_each:
            raise UserError(
                f"{root} holds several tables: {', '.join(hits)}; name one (--tags, --boxes)"
            )
        if aside:
            return [(str(aside[0]), "", aside[0].read_bytes())]
        if inside:
            found = []
            for part, name in inside:
                where = part.prefix + name
                folder = folder_of(where, group == METADATA or len(hits) > 1)
                found.append((where, folder, content(root, part, name)))
            return found
    return []


def folder_of(table: str, own: bool = False) -> str:
    """'train/', the folder that a table of 'train/labels.csv' is of; '' where it is of all images.

    A single table is of all of them, unless it lies in the folder of a split or domain.

    Args:
      own: whether it is of its own folder, whatever that is called.
    """
    folder = PurePosixPath(table).parent
    own = own or any(part.lower() in SPLITS for part in folder.parts)
    return f"{folder.as_posix()}/" if own and folder.parts else ""


def split_of(folder: str) -> str:
    """A folder's or shard's name, in lower case, without what stands around that of a split.

    'train-00000-of-00004', with a hash too; COCO's 'train2017'; 'test_images'; 'seg_train'.
    """
    bare = re.sub(r"-\d+(-of-\d+(-[0-9a-f]{8,})?)?$|(?<=[a-z])\d{4}$", "", folder.lower())
    return re.sub(r"^seg[-_ ]|[-_ ](images?|imgs?|set|data)$", "", bare)


def parted(names: list[str]) -> bool:
    """Whether folders say a split, by both of its sides; 'train' alone is a class beside 'bus'."""
    folders = {name.rpartition("/")[0] for name in names}
    words = {split_of(folder) for path in folders for folder in path.split("/")}
    return {HELD.get(word) for word in words} >= {True, False} or not words.isdisjoint(DOMAINS)


def placed(folder: str, key: str) -> str:
    """A row's name in the source, of a table that is of a folder."""
    key = plain_path(key)
    return key if key.startswith(folder) else f"{folder}{key}"


def _apart(hits: list[str]) -> bool:
    """Whether tables have one name and lie side by side: train/labels.csv, test/labels.csv."""
    folders = {PurePosixPath(hit).parent for hit in hits}
    nested = any(a != b and b.is_relative_to(a) for a in folders for b in folders)
    return len({PurePosixPath(hit).name for hit in hits}) == 1 and not nested


def named(parts: Iterable[Part], names) -> list[tuple[Part, str]]:
    """Members that have one of these names, in whatever folder and letter case."""
    return [
        (part, name)
        for part in parts
        for name in part.others
        if PurePosixPath(name).name.lower() in names and visible(name)
    ]


def content(root: Path, part: Part, name: str) -> bytes:
    """The bytes of a label file that lies in a source."""
    ((_, data),) = archives.read(part.store, [name], MOST_BYTES + 1)
    if isinstance(data, Finding):
        raise UserError(f"{root}: {data}")
    if len(data) > MOST_BYTES:
        raise UserError(f"{root}: {name} is over {MOST_BYTES >> 20:,} MiB; label files are smaller")
    return data


def given_file(root, parts, given: str) -> tuple[str, bytes]:
    """(name, bytes) of a file that the user named: a path, or a name in or beside the source."""
    if path := outside(root, given):
        return str(path), path.read_bytes()
    inside = [(part, name) for part in parts for name in part.others if name == given]
    inside = inside or named(parts, (given.lower(),))
    if len(inside) == 1:
        return inside[0][1], content(root, *inside[0])
    there = ", ".join(part.prefix + name for part, name in inside[:WORDS])
    raise UserError(
        f"the file {given!r} " + (f"is ambiguous: {there}" if there else "does not exist")
    )


def outside(root: Path, given: str) -> Path | None:
    """The file that a user's word names: a path, or a name in a folder or beside an archive."""
    tried = [Path(given).expanduser(), (root if root.is_dir() else root.parent) / given]
    return next((path for path in tried if path.is_file()), None)


def splits(rows: Rows, wanted: tuple[str, ...]) -> tuple[Rows, dict[str | None, bool]]:
    """The rows without a column that says a split, and what it says: key -> whether held out.

    Of a few it may say something else, or nothing.
    """
    names = dict.fromkeys(name for _, row in rows for name in row.classes)
    column = next((name for name in names if name.lower() in SPLIT_COLUMNS), None)
    if column is None or plain(column) in map(plain, wanted):
        return rows, {}
    said = {key: row.classes.get(column, "").lower() for key, row in rows}
    held = PARTITION if column == "partition" and {*said.values()} <= {*PARTITION} else HELD
    sides = [held[word] for word in said.values() if word in held]
    if len({*sides}) < 2 or len(sides) < KNOWN * len(said):
        return rows, {}
    without = (
        (key, row._replace(classes={n: v for n, v in row.classes.items() if n != column}))
        for key, row in rows
    )
    return Rows(without), {key: held[value] for key, value in said.items() if value in held}
