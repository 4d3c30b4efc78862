"""A table as data, with two renderers: text for terminals and files, HTML for pages."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anigan_jax.errors import printable

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Table:
    """Rows under a title; whoever measures fills it, a renderer lays it out.

    Attributes:
      columns: () for a list of names and values.
      rows: cells; what is no text is formatted by `cell`.
      notes: sentences below.
      folded: a detail, which a page folds away and a terminal leaves out.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence] = ()
    notes: Sequence[str] = ()
    folded: bool = False

    def __post_init__(self):
        texts = {
            "title": printable(self.title),
            "columns": tuple(map(printable, self.columns)),
            "rows": tuple(tuple(printable(cell(value)) for value in row) for row in self.rows),
            "notes": tuple(map(printable, self.notes)),
        }
        for name, text in texts.items():
            object.__setattr__(self, name, text)


def cell(value) -> str:
    """A value as a table shows it: four digits, thousands separated, shares with intervals."""
    if isinstance(value, dict) and "value" in value:
        low, high = value.get("low"), value.get("high")
        interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
        return percent(value["value"]) + interval
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    return str(value)


def percent(share: float | None) -> str:
    """'12.5 %'."""
    return "-" if share is None else f"{100 * share:.1f} %"


def as_text(tables: Iterable[Table], *, folded: bool = False) -> str:
    """Tables for a terminal; also valid Markdown, to be pasted. Numbers are never wrapped."""
    return "\n\n".join(_as_text(table) for table in tables if folded or not table.folded)


def _as_text(table: Table) -> str:
    parts = [table.title] if table.title else []
    rows, head = table.rows, [table.columns] if table.columns else []
    width = [max(map(len, column)) for column in zip(*head, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        rest = [f"{text:>{w}}" for text, w in zip(row[1:], width[1:], strict=True)]
        return f"| {' | '.join([f'{row[0]:{width[0]}}', *rest])} |"

    if head:
        rule = [f"|{'-' * (width[0] + 2)}", *(f"|{'-' * (w + 1)}:" for w in width[1:])]
        parts.append("\n".join([line(head[0]), "".join(rule) + "|", *map(line, rows)]))
    elif rows:
        listed = ["  ".join([f"- {row[0]:{width[0]}}", *row[1:]]) for row in rows]
        parts.append("\n".join(text.rstrip() for text in listed))
    if table.notes:
        parts.append("\n".join(table.notes))
    return "\n\n".join(parts)


def as_html(table: Table):
    """A table for a page, every text of it escaped (markupsafe.Markup)."""
    from markupsafe import Markup

    return Markup(environment().get_template("table.html").render(t=table))


@functools.cache
def environment(assets: Path = ASSETS):
    """The templates of pages in a folder, with escaping on."""
    import jinja2  # only pages need it

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(assets),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"cell": cell, "html": as_html, "shown": printable}
    return found
