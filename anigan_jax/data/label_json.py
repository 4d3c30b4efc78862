"""Label files of JSON: lines, records, StyleGAN's dataset.json, COCO, names with what they say."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from anigan_jax.data.label_fields import (
    NAMES,
    Labels,
    cell,
    class_row,
    is_image,
    lines,
    of_fields,
    of_records,
    split_tags,
    usual,
)
from anigan_jax.data.matching import folded
from anigan_jax.data.rows import Row, Rows, Tag
from anigan_jax.data.words import plain

UNLABELED = Labels("no labels", Rows(), [])
"""Of a dataset.json that says itself that it has none."""


def of_lines(text: str, images: Collection[str]) -> Labels | None:
    """One JSON object a line, as Hugging Face writes metadata.jsonl."""
    try:
        first = json.loads(next(lines(text)))
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict) or not (_keys(first) or any(map(is_image, first.values()))):
        return None
    faults: list[tuple[str, str, str]] = []

    def records() -> Iterator[dict]:
        for number, line in enumerate(lines(text), start=1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("it is not an object")
            except (ValueError, RecursionError) as error:
                faults.append((f"line {number}", "bad row", str(error)))
                continue
            yield record

    return of_records("JSON lines", records(), images)._replace(faults=faults)


def of_tree(text: str, images: Collection[str]) -> Labels | None:
    """Records, however they are wrapped; StyleGAN's dataset.json; COCO; name -> text or tags."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        return None
    pairs = root.get("labels", ()) if isinstance(root, dict) else ()
    if isinstance(pairs, dict) and any(map(is_image, pairs)):
        pairs = [*pairs.items()]
    if isinstance(pairs, list | None):
        return UNLABELED if pairs is None else _stylegan(pairs)
    if isinstance(root, dict) and {"images", "annotations"} <= root.keys():
        return _coco(root)
    if (records := _records(root)) is not None:
        return of_records("JSON", records, images)
    inner = [one for one in root.values() if isinstance(one, dict)]
    if 2 * sum(bool(_named(one)) for one in inner) > len(root) and _by_another_key(root, images):
        return of_records("JSON", inner, images)
    rows = Rows()
    for key, value in root.items():
        if isinstance(value, dict):
            rows.append((key, of_fields({**value, NAMES[0]: key})[1]))
        elif isinstance(value, list):
            rows.append((key, Row(tags=tuple(split_tags(value)))))
        elif isinstance(value, str | int) and not isinstance(value, bool):
            rows.append((key, Row(text=value) if isinstance(value, str) else class_row(value)))
    return Labels("JSON", rows, [])


def _keys(record: dict) -> bool:
    """Whether a column is named as one of images, and says one."""
    cells = {str(n).lower(): v for n, v in record.items() if isinstance(v, str | int)}
    return usual(cells) is not None


def _named(record: dict) -> str:
    """The name of an image in a column that is named as one of images; '' where none is."""
    columns = {str(name).lower(): value for name, value in record.items()}
    return next((columns[name] for name in NAMES if is_image(columns.get(name))), "")


def _by_another_key(root: dict, images: Collection[str]) -> bool:
    """Whether the keys of records are not the images': the index of pandas, or a name of their own.

    As many of the images may be named by chance: the numbers 0, 1, 2, ... beside 0001.png.
    """
    known = set(map(folded, images))
    inner = (_named(one) for one in root.values() if isinstance(one, dict))
    keys, named = len(known & {*map(folded, root)}), len(known & {*map(folded, inner)})
    return named > keys or (named > 0 and 10 * named >= 9 * keys and all(map(str.isdecimal, root)))


def _records(tree: Any) -> list[dict] | None:
    """The records of a list, of a list in an object ({"data": [...]}), or of columns (pandas)."""
    if isinstance(tree, list):
        return [one for one in tree if isinstance(one, dict)]
    lists = [v for v in tree.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if lists:
        return _records(max(lists, key=len))
    columns = {n: [*v.values()] if isinstance(v, dict) else v for n, v in tree.items()}
    if not _keys(dict.fromkeys(tree, "x")) or not all(
        isinstance(column, list) for column in columns.values()
    ):
        return None
    return [dict(zip(columns, row, strict=False)) for row in zip(*columns.values(), strict=False)]


def _coco(tree: dict) -> Labels:
    """COCO's images, annotations (captions, or categories) and categories."""

    def named(key: str, value: str) -> dict:
        each = tree.get(key)
        each = [one for one in each if isinstance(one, dict)] if isinstance(each, list) else []
        return {str(one.get("id")): str(one.get(value, "")) for one in each}

    names, kinds = named("images", "file_name"), named("categories", "name")
    texts: dict[str, str] = {}
    tags: dict[str, dict[str, None]] = {}
    for one in tree["annotations"] if isinstance(tree["annotations"], list) else ():
        if isinstance(one, dict):
            image = str(one.get("image_id"))
            texts.setdefault(image, cell(one.get("caption")))
            kind = plain(kinds.get(str(one.get("category_id")), ""))
            tags.setdefault(image, {}).update({kind: None} if kind else {})
    single = all(len(kind) < 2 for kind in tags.values())
    rows = Rows()
    for image, name in names.items():
        shown = list(tags.get(image, ()))
        classes = {"category": shown[0]} if single and shown else {}
        tagged = () if single else tuple(map(Tag, shown))
        rows.append((name, Row(texts.get(image, ""), tagged, classes)))
    return Labels("COCO", rows, [])


def _is_marks(value: list) -> bool:
    return all(one in (0, 1) for one in value)


def _stylegan(pairs: list) -> Labels:
    """[["00000/img00000000.png", 3], ...]; classes may be one-hot, or several of an image."""
    found = Labels("dataset.json", Rows(), [])
    known = [pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
    vectors = [value for _, value in known if isinstance(value, list)]
    marks = [value for value in vectors if _is_marks(value)]
    # Poses and the like name no class.
    measured = 2 * len(marks) < len(vectors)
    several = any(value.count(1) > 1 for value in marks)
    for number, pair in enumerate(pairs):
        try:
            name, value = pair
            if not isinstance(value, list):
                row = class_row(value)
            elif measured:
                row = Row()
            elif not _is_marks(value):
                raise ValueError("its class is neither a number nor one-hot")
            elif several:
                row = Row(classes={f"label {i}": f"{one:g}" for i, one in enumerate(value)})
            else:
                row = class_row(value.index(1)) if any(value) else Row()
            found.rows.append((str(name), row))
        except (TypeError, ValueError) as error:
            found.faults.append((f"label {number}", "bad row", str(error)))
    return found
