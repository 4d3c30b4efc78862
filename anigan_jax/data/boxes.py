"""Face boxes of images: a table of file, x, y, w and h in, beside or named for a source."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from anigan_jax.data import label_files, table_files
from anigan_jax.data.decode import Finding
from anigan_jax.data.label_fields import NAMES, lines
from anigan_jax.data.label_text import of_bytes
from anigan_jax.data.matching import match
from anigan_jax.data.table_files import BOX_FILES, Part
from anigan_jax.errors import UserError

SIDES, CORNERS = ("x", "y", "w", "h"), ("x", "y", "right", "bottom")
# What else columns are called; CelebA's list_bbox_celeba.txt begins with the number of its rows.
SPELLINGS = {
    **dict.fromkeys(("x_1", "x1", "xmin", "x_min", "left"), "x"),
    **dict.fromkeys(("y_1", "y1", "ymin", "y_min", "top"), "y"),
    **dict.fromkeys(("x_2", "x2", "xmax", "x_max"), "right"),
    **dict.fromkeys(("y_2", "y2", "ymax", "y_max"), "bottom"),
    "width": "w",
    "height": "h",
}
Box = tuple[float, float, float, float]


def read(
    root: Path,
    parts: list[Part],
    beside: Path | None,
    given: str = "",
    findings: list[Finding] | None = None,
) -> dict | None:
    """Face boxes x, y, w, h by file of the table in, beside or named for a source; or None.

    Args:
      beside: a folder that may hold the table.
      findings: where files with several boxes are noted; the largest is used.

    Raises:
      UserError: no such table, several, or one that is no table of boxes.
    """
    folder = ""
    if given:
        where, data = table_files.given_file(root, parts, given)
    else:
        inside = table_files.named(parts, BOX_FILES)
        near = table_files.near(table_files.listed(beside), BOX_FILES)
        hits = [*(path.name for path in near), *(f"{p.prefix}{name}" for p, name in inside)]
        if not hits:
            return None
        if len(hits) > 1:
            raise UserError(f"{root} holds several tables: {', '.join(hits)}; name one (--boxes)")
        where = hits[0]
        folder = "" if near else table_files.folder_of(where)
        data = near[0].read_bytes() if near else table_files.content(root, *inside[0])
    try:
        found = _of_table(of_bytes(data, where), where, [] if findings is None else findings)
        return {table_files.placed(folder, key): box for key, box in found.items()}
    except csv.Error as error:
        raise UserError(f"{where} is not a CSV file: {error}") from None


def _of_table(text: str, where: str, findings: list[Finding]) -> dict[str, Box]:
    text = re.sub(r"\A\ufeff?(\s*\d+\s*[\r\n]+)?", "", text)
    blank = not any(mark in next(lines(text), "") for mark in ",;\t|")
    rows = (line.split() for line in lines(text)) if blank else label_files.cells(text)
    rows = rows or iter(())
    given = {name.lower(): at for at, name in enumerate(next(rows, ()))}
    # x, y, w and h as they are called before what means the same.
    place = {**{SPELLINGS.get(name, name): at for name, at in given.items()}, **given}
    key = next((name for name in NAMES if name in place), "")
    # Beside corners, 'width' and 'height' are the image's own.
    corners = place.keys() >= {*CORNERS} and not given.keys() >= {*SIDES}
    sides = CORNERS if corners else SIDES
    if not key or not place.keys() >= {*sides}:
        raise UserError(
            f"{where}: its first line must name the columns file,x,y,w,h (or file,x1,y1,x2,y2)"
        )
    boxes: dict[str, Box] = {}
    several = set()
    for number, row in enumerate(rows, start=2):
        if not any(row[place[side]].strip() for side in sides if place[side] < len(row)):
            # No face was found there.
            continue
        try:
            # Beside semicolons, a spreadsheet of many countries writes 0,5.
            x, y, w, h = (float(row[place[side]].replace(",", ".")) for side in sides)
            w, h = (w - x, h - y) if corners else (w, h)
            name = row[place[key]]
            if name in boxes:
                several.add(name)
            boxes[name] = max((boxes.get(name, (x, y, w, h)), (x, y, w, h)), key=_area)
        except (IndexError, ValueError):
            raise UserError(f"{where}, line {number}: {', '.join(sides)} must be numbers") from None
    if boxes and all(0 <= value <= 1 for box in boxes.values() for value in box):
        raise UserError(
            f"{where} has shares of the picture (0 to 1), but pixels are needed: multiply x and "
            "the width by the picture's width, y and the height by its height"
        )
    findings += [Finding(n, "conflict", "several boxes; the largest is used") for n in several]
    return boxes


def _area(box: Box) -> float:
    return box[2] * box[3]


def attach(items: list, boxes: dict | None, findings: list[Finding]) -> list:
    """The items with their boxes; what has no partner is added to `findings`."""
    if boxes is None:
        return items
    fits = match([item.whole for item in items], boxes)
    findings += [Finding(i.name, "no box") for i in items if i.whole not in fits]
    used = set(fits.values())
    findings += [Finding(key, "no image", "a box") for key in boxes if key not in used]
    return [i._replace(box=boxes.get(fits.get(i.whole, ""))) for i in items]
