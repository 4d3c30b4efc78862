"""What a source holds and what is wrong with it: as data, as text and as a page."""

from __future__ import annotations

import base64
import io
from collections import Counter
from pathlib import Path

import numpy as np

from anigan_jax.data import labels as tags
from anigan_jax.data.decode import NOTED, REFUSED
from anigan_jax.data.ingest import Scan
from anigan_jax.errors import printable
from anigan_jax.storage import images as record

SHOWN = 5
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
        "ignored_files": found.catalogue.ignored,
        "parts": {name: sizes[name] for name in sorted(sizes)},
        "duplicate_share": round(1 - len(groups) / max(len(found.items), 1), 6),
        "counts": {
            code: {"count": codes[code], "refused": code in REFUSED, "rule": rule}
            for code, rule in {**REFUSED, **NOTED}.items()
            if codes[code]
        },
        "classes": classes(found),
        "findings": [
            {"file": f.file, "code": f.code, "detail": f.detail, "refused": f.refused}
            for f in found.findings
        ],
    }


def classes(found: Scan) -> dict:
    """Images per color of hair and eyes, and per pair 'aqua hair red eyes'."""
    if not found.catalogue.labeled:
        return {}
    labels = [found.items[i].label for i in found.order]
    table = {}
    for part, names in tags.COLORS.items():
        counts = Counter(getattr(label, part) for label in labels)
        table[part] = {name: counts[name] for name in (*names, None) if counts[name]}
        if None in table[part]:
            table[part]["unknown"] = table[part].pop(None)
    pairs = Counter(str(label) for label in labels if label.hair and label.eyes)
    table["pairs"] = dict(sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0])))
    return table


def as_text(report: dict, limit: int = SHOWN) -> str:
    """The report for a terminal: every kind of finding, its first files, the class table."""
    lines = [
        f"{report['source']}: {report['images']} images, {report['usable']} usable "
        f"({', '.join(f'{name} {n}' for name, n in report['parts'].items()) or 'none'})"
    ]
    if report["ignored_files"]:
        lines.append(f"{report['ignored_files']} files left aside (tables, texts, hidden files)")
    for refused, title in ((True, "cannot be used"), (False, "noted")):
        kinds = {k: v for k, v in report["counts"].items() if v["refused"] == refused}
        if kinds:
            lines.append(f"\n{title}:")
        for code, kind in kinds.items():
            lines.append(f"  {kind['count']:6}  {code}: {kind['rule']}")
            of_kind = [f for f in report["findings"] if f["code"] == code]
            for f in of_kind[:limit]:
                detail = f" ({f['detail']})" if f["detail"] else ""
                lines.append(f"            {printable(f['file'])}{printable(detail)}")
            if len(of_kind) > limit:
                lines.append(f"            ... and {len(of_kind) - limit} more (--json lists all)")
    for part in tags.COLORS:
        if report["classes"].get(part):
            table = ", ".join(f"{name} {n}" for name, n in report["classes"][part].items())
            lines.append(f"\n{part}: {table}")
    if report["classes"].get("pairs"):
        possible = len(tags.HAIR) * len(tags.EYES)
        lines.append(f"\n{len(report['classes']['pairs'])} of {possible} pairs of colors occur")
    return "\n".join(lines)


def write_page(report: dict, found: Scan, path: Path) -> None:
    """One HTML file that opens from disk: contact sheets, findings and the class table."""
    import jinja2  # only pages need it

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
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["shown"] = printable
    text = environment.from_string(PAGE).render(
        r=report, sheets=sheets, hair=tags.HAIR, eyes=tags.EYES, limit=200
    )
    path.write_text(text, encoding="utf-8")


def _sheet(images: np.ndarray) -> str:
    """A contact sheet as a data address."""
    buffer = io.BytesIO()
    sheet = record.grid(images, columns=min(COLUMNS, len(images)), pad=0)
    sheet.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ r.source | shown }}</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: auto; padding: 1rem; }
h1 { overflow-wrap: anywhere; }
img { width: 100%; max-width: 64rem; image-rendering: pixelated; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
td, th { padding: .2rem .6rem; border: 1px solid #8886; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.refused { color: #c33; }
</style></head><body>
<h1>{{ r.source | shown }}</h1>
<p>{{ r.images }} images, {{ r.usable }} usable:
{% for name, n in r.parts.items() %}{{ name }} {{ n }}{{ ", " if not loop.last }}{% endfor %}.
Share of duplicates {{ "%.2f" | format(100 * r.duplicate_share) }} %.</p>
<h2>Findings</h2>
{% if r.counts %}<table><tr><th>count</th><th>kind</th><th>what is done</th></tr>
{% for code, kind in r.counts.items() %}<tr{% if kind.refused %} class="refused"{% endif %}>
<td class="n">{{ kind.count }}</td><td>{{ code }}</td>
<td>{{ "left out: " if kind.refused }}{{ kind.rule }}</td></tr>
{% endfor %}</table>{% else %}<p>None.</p>{% endif %}
{% for title, address in sheets %}<h2>{{ title }}</h2>
<img alt="{{ title }}" src="{{ address }}">{% endfor %}
{% if r.classes %}<h2>Classes</h2>
<div class="wide"><table><tr><th>hair \\ eyes</th>
{% for e in eyes %}<th>{{ e }}</th>{% endfor %}<th>all</th></tr>
{% for h in hair %}<tr><th>{{ h }}</th>
{% for e in eyes %}<td class="n">{{ r.classes.pairs.get(h ~ " hair " ~ e ~ " eyes", "") }}</td>
{% endfor %}<td class="n">{{ r.classes.hair.get(h, "") }}</td></tr>{% endfor %}
<tr><th>all</th>{% for e in eyes %}<td class="n">{{ r.classes.eyes.get(e, "") }}</td>{% endfor %}
<td class="n">{{ r.usable }}</td></tr></table></div>{% endif %}
{% if r.findings %}<h2>Files</h2>
<div class="wide"><table><tr><th>file</th><th>kind</th><th>detail</th></tr>
{% for f in r.findings[:limit] %}<tr{% if f.refused %} class="refused"{% endif %}>
<td>{{ f.file | shown }}</td><td>{{ f.code }}</td><td>{{ f.detail | shown }}</td></tr>
{% endfor %}</table></div>
{% if r.findings | length > limit %}<p>The first {{ limit }} of {{ r.findings | length }};
<code>anigan check --json</code> lists all.</p>{% endif %}{% endif %}
</body></html>
"""
