"""What a source holds and what is wrong with it: as data, as tables and as a page."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np

from anigan_jax.data.attributes import PARTS, label_of, rows, say
from anigan_jax.data.decode import NOTED, REFUSED
from anigan_jax.data.discover import counted
from anigan_jax.data.ingest import Scan
from anigan_jax.report.table import Table, environment, percent
from anigan_jax.storage import images as record

SHOWN, FILES = 5, 200
"""Files that a terminal and a page list of each kind of finding."""
# Kinds that are no fault of an image: counted, not listed.
COUNTED = ("no image",)
SHEET = 64
COLUMNS = 16
PAIRS = 24


def summary(source: str, found: Scan) -> dict:
    """Everything that `anigan check --json` prints; file names in ASCII with escapes."""
    codes = Counter(f.code for f in found.findings)
    sizes = Counter(found.parts[i] for i in found.order)
    groups = Counter(found.groups.tolist())
    return {
        "source": source,
        "images": len(found.catalogue.items),
        "usable": len(found.order),
        "ignored_files": sum(found.catalogue.ignored.values()),
        "ignored": dict(found.catalogue.ignored),
        "parts": {name: sizes[name] for name in sorted(sizes)},
        "largest_group": max(groups.values(), default=0),
        "held_out_share": round(
            sum(n for name, n in sizes.items() if name.startswith("test"))
            / max(len(found.order), 1),
            6,
        ),
        "duplicate_share": round(1 - len(groups) / len(found.items) if found.items else 0.0, 6),
        "counts": {
            code: {"count": codes[code], "refused": code in REFUSED, "rule": rule}
            for code, rule in {**REFUSED, **NOTED}.items()
            if codes[code]
        },
        "classes": classes(found),
        "combinations": math.prod(len(a.classes) for a in found.catalogue.attributes),
        "findings": [
            {"file": f.file, "code": f.code, "detail": f.detail, "refused": f.refused}
            for f in found.findings
        ],
    }


def classes(found: Scan) -> dict:
    """Images per class of each attribute, and per combination 'aqua hair red eyes'."""
    attributes = found.catalogue.attributes
    if not attributes:
        return {}
    labels = rows(attributes, (found.items[i].label for i in found.order))
    table = {}
    for at, (part, names) in enumerate(attributes):
        # -1, of what is unknown, comes last.
        counts = np.roll(np.bincount(labels[:, at] + 1, minlength=len(names) + 1), -1).tolist()
        table[part] = {n: c for n, c in zip((*names, "unknown"), counts, strict=True) if c}
    whole, often = np.unique(labels[(labels >= 0).all(1)], axis=0, return_counts=True)
    said = (say(attributes, label_of(attributes, row)) for row in whole)
    pairs = sorted(zip(said, often.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    table["pairs"] = dict(pairs)
    return table


def tables(report: dict, limit: int = SHOWN) -> list[Table]:
    """The report as tables; `limit`: files that are listed of each kind of finding."""
    parts = ", ".join(f"{name} {n}" for name, n in report["parts"].items()) or "none"
    notes = [
        f"Share of duplicates: {percent(report['duplicate_share'])}; the largest group of equal, "
        f"mirrored or near images has {report['largest_group']}. Held out: "
        f"{percent(report['held_out_share'])}."
    ]
    if report["ignored_files"]:
        notes.append(f"Not read: {counted(report['ignored'])}.")
    title = f"{report['source']}: {report['images']} images, {report['usable']} usable ({parts})"
    found = [Table(title, notes=notes)]
    for refused, title in ((True, "cannot be used"), (False, "noted")):
        kinds = {k: v for k, v in report["counts"].items() if v["refused"] == refused}
        if not kinds:
            continue
        rows = [[kind, one["count"], one["rule"]] for kind, one in kinds.items()]
        found.append(Table(title, ["kind", "count", "rule"], rows))
        rows, more = [], []
        for kind in kinds:
            if kind in COUNTED:
                more.append(f"{kinds[kind]['count']} findings of kind {kind!r} (--json lists all)")
                continue
            of_kind = [f for f in report["findings"] if f["code"] == kind]
            rows += [[f["file"], kind, f["detail"]] for f in of_kind[:limit]]
            if len(of_kind) > limit:
                more.append(f"... and {len(of_kind) - limit} more: {kind} (--json lists all)")
        columns = ["file", "kind", "detail"] if rows else []
        found.append(Table(f"files: {title}", columns, rows, more))
    return found + _classes(report)


def _classes(report: dict) -> list[Table]:
    counts = report["classes"]
    if not counts:
        return []
    parts = {part: classes for part, classes in counts.items() if part != "pairs"}
    rows = [[part, classes] for part, classes in parts.items() if classes]
    pairs = counts["pairs"]
    rows.append(["combinations", f"{len(pairs)} of {report['combinations']:,} occur"])
    found = [Table("classes", rows=rows)]
    if set(parts) == set(PARTS):
        hair, eyes = ([c for c in parts[part] if c != "unknown"] for part in PARTS)
        grid = [
            [h, *(pairs.get(f"{h} hair {e} eyes", "") for e in eyes), parts["hair"][h]]
            for h in hair
        ]
        last = ["all", *(parts["eyes"][e] for e in eyes), report["usable"]]
        head = ["hair \\ eyes", *eyes, "all"]
        found.append(Table("pairs of colors", head, [*grid, last], folded=True))
    return found


def write_page(report: dict, found: Scan, path: Path) -> None:
    """One HTML file that opens from disk: contact sheets, findings and the class table."""
    used = np.array(found.order, np.int64)
    sheets = []
    for part in report["parts"]:
        rows = used[[found.parts[i] == part for i in used]]
        # Every n-th by name: the same sheet for the same data.
        picked = rows[np.linspace(0, len(rows) - 1, min(SHEET, len(rows))).astype(int)]
        sheets.append((f"{part}: {len(picked)} of {len(rows)}", _sheet(found.take(picked))))
    pairs = [(p.index, p.of) for p in found.pairs[:PAIRS]]
    if pairs:
        title = f"duplicates, mirrors and near images: {len(pairs)} of {len(found.pairs)} pairs"
        both = found.take(np.array(pairs).ravel())
        sheets.append((title, _sheet(both)))
    page = environment().get_template("data.html")
    text = page.render(source=report["source"], tables=tables(report, FILES), sheets=sheets)
    path.write_text(text, encoding="utf-8")


def _sheet(images: np.ndarray) -> str:
    """A contact sheet as a data address."""
    buffer = io.BytesIO()
    sheet = record.grid(images, columns=min(COLUMNS, len(images)), pad=0)
    sheet.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
