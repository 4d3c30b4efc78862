"""The page of `anigan report`: one file that opens from disk and makes no network request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import time
from pathlib import Path

from PIL import Image, ImageSequence

from anigan_jax.errors import UserError
from anigan_jax.metrics.feature_scores import label
from anigan_jax.report import collect, files
from anigan_jax.report.table import cell, environment
from anigan_jax.storage import atomic, epochs
from anigan_jax.storage.metrics_file import spaced

ASSETS = Path(__file__).parent / "assets"
SIDE = 1100
"""Longest side of a picture in pixels; larger ones are made smaller."""
MOVING_SIDE, FRAMES = 480, 90
SLIDES_BYTES = 4_000_000
"""Of all runs together; a run has fewer previews before it has more bytes."""
FEWEST = 4

# Metrics of one run by chart: title, the names' beginnings; several runs have a chart a metric.
GROUPS = (
    ("Losses", ("loss/g", "loss/d")),
    ("Terms of the losses", ("loss/",)),
    ("Scores of D", ("score/",)),
    ("Accuracy", ("accuracy/",)),
    ("Gradient norms", ("gradient/",)),
    ("Images per second", ("images_per_sec",)),
)


def write(runs: list[dict], path: Path) -> list[str]:
    """Writes the page of some runs' dicts (`report.collect`).

    Returns:
      What could not be shown, a sentence each.
    """
    missing: list[str] = []
    share = SLIDES_BYTES // len(runs)
    views = [{**_view(run, share, missing), "index": i} for i, run in enumerate(runs)]
    data = {
        "runs": [
            {
                **{k: run[k] for k in ("label", "curves", "scores", "warnings", "slides")},
                "epochs": run["epochs"] and run["epochs"]._asdict(),
            }
            for run in views
        ],
        "charts": charts(runs),
    }
    scripts = [_asset("uplot/uPlot.iife.min.js"), _asset("report.js")]
    environment().filters |= {"short": short, "duration": duration, "breakable": breakable}
    environment().filters["named"] = epochs.named
    page = (
        environment()
        .get_template("report.html")
        .render(
            runs=views,
            many=len(runs) > 1,
            charts=data["charts"],
            sections=sections(views, data["charts"]),
            rows=setting_rows(runs),
            facts=fact_rows(runs),
            missing=missing,
            made=time.strftime("%Y-%m-%d %H:%M"),
            styles=[_asset("uplot/uPlot.min.css"), _asset("report.css")],
            scripts=scripts,
            license=_asset("uplot/LICENSE"),
            # Nothing runs but these scripts, whatever a name or a number may hold.
            allowed=" ".join(script_hash(text) for text in scripts),
            data=script_json(data),
        )
    )
    # Names of files need not be text.
    content = page.encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        atomic.save_text(content, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    return missing


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def script_hash(text: str) -> str:
    """What a content security policy calls a script."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def script_json(data) -> str:
    """JSON that is harmless within a script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def short(digest: str | None) -> str:
    """The beginning of a hash; the page has all of it as a tooltip."""
    if not digest:
        return "-"
    return digest if len(digest) <= 16 else f"{digest[:12]}..."


def breakable(name: str):
    """A setting's path, which may be broken after its dots and underscores."""
    from markupsafe import Markup, escape

    return Markup(escape(name).replace(".", Markup(".<wbr>")).replace("_", Markup("_<wbr>")))


def duration(seconds: float) -> str:
    """'42 min', '3 h 20 min', '45 s'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"


def charts(runs: list[dict]) -> list[dict]:
    """What is drawn: 'section', 'title', 'better', 'series' of {'run', 'key', 'label'}."""
    found = []

    def add(section: str, title: str, series: list[dict], **rest) -> None:
        if series:
            about = {"id": len(found), "section": section, "title": title, "better": "", "says": ""}
            found.append({**about, **rest, "series": series})

    def names(part: str) -> list[str]:
        return list(dict.fromkeys(name for run in runs for name in run[part]["series"]))

    def of_runs(part: str, name: str) -> list[dict]:
        return [
            {"run": i, "key": name, "label": run["label"] if len(runs) > 1 else name}
            for i, run in enumerate(runs)
            if name in run[part]["series"]
        ]

    left = names("curves")
    for title, begin in (*GROUPS, ("Others", ("",))):
        keys = [name for name in left if name.startswith(begin)]
        left = [name for name in left if name not in keys]
        if title == "Losses":
            # The terms are a chart of their own.
            left += [name for name in keys if name not in begin]
            keys = [name for name in begin if name in keys]
        if len(runs) == 1:
            add("curves", title, [line for key in keys for line in of_runs("curves", key)])
            continue
        for key in keys:
            add("curves", key, of_runs("curves", key))
    for key in names("scores"):
        of = label(key)
        add("scores", of.title, of_runs("scores", key), better=of.better, says=of.says)
    for chart in found:
        chart["aria"] = "; ".join(
            _in_words(runs, chart["section"], line) for line in chart["series"]
        )
    return found


def _in_words(runs: list[dict], section: str, line: dict) -> str:
    """A series as a sentence, for those who do not see its line."""
    series = runs[line["run"]][section]["series"][line["key"]]
    if section == "curves":
        numbers = series["numbers"]
        if numbers is None:
            return f"{line['label']}: no values"
        low, high = numbers["lowest"], numbers["highest"]
        return (
            f"{line['label']}: from {numbers['first']:.4g} to {numbers['last']:.4g}, lowest "
            f"{low[0]:.4g} at step {low[1]:,}, highest {high[0]:.4g} at step {high[1]:,}"
        )
    values = [value for value in series if value is not None]
    if not values:
        return f"{line['label']}: no values"
    return (
        f"{line['label']}: {len(values)} values, first {values[0]:.4g}, last {values[-1]:.4g}, "
        f"lowest {min(values):.4g}, highest {max(values):.4g}"
    )


def sections(views: list[dict], drawn: list[dict]) -> list[tuple[str, str]]:
    """(name, title) of the parts that the page has, in their order."""

    def some(key) -> bool:
        return any(key(view) for view in views)

    verbs = sorted({verb for view in views for verb in view["outputs"]})
    outputs = [(f"out-{verb}", files.title(verb), True) for verb in verbs]
    return [
        (name, title)
        for name, title, there in (
            ("training", "Over the training", some(lambda v: v["slides"]["steps"] or v["real"])),
            ("curves", "Curves", any(c["section"] == "curves" for c in drawn)),
            ("epochs", "By epoch", some(lambda v: v["by_epoch"])),
            ("scores", "Evaluated checkpoints", any(c["section"] == "scores" for c in drawn)),
            ("warnings", "Warnings", some(lambda v: v["warnings"])),
            *outputs,
            ("ledger", "Ledger", True),
            ("again", "Run it again", True),
        )
        if there
    ]


def setting_rows(runs: list[dict]) -> list[dict]:
    """A row for each setting: 'name', 'values' by run (None: it has no such), and 'differs':
    between the runs, or of one run alone from its config file."""
    rows = _rows([run["settings"] for run in runs])
    if len(runs) == 1:
        flags = [word[2:] for word in runs[0]["overrides"] if word.startswith("--")]
        # A switch is turned off by `--data.no-edges`.
        given = {flag.split("=")[0].replace("-", "_").replace(".no_", ".") for flag in flags}
        for row in rows:
            row["differs"] = row["name"] in given
    return rows


def fact_rows(runs: list[dict]) -> list[dict]:
    """The same for versions, devices, flags and digests."""
    return _rows(
        [{**{k: cell(v) for k, v in run["facts"].items()}, **run["digests"]} for run in runs]
    )


def _rows(tables: list[dict]) -> list[dict]:
    names = dict.fromkeys(name for table in tables for name in table)
    rows = []
    for name in names:
        values = [table.get(name) for table in tables]
        rows.append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return rows


def _view(run: dict, budget: int, missing: list[str]) -> dict:
    """A run's dict with its pictures as data addresses."""

    def shown(one: dict, **options) -> dict | None:
        with _noting_missing(one["path"], missing):
            return {**one, "picture": embedded(one["path"], **options)}
        return None

    def drawn(one: dict) -> dict | None:
        view = shown(one, quality=90)
        if view and one["moving"]:
            view["moving"] = None
            with _noting_missing(one["moving"], missing):
                view["moving"] = embedded_moving(one["moving"])
        return view

    outputs = {}
    for verb, left in run["outputs"].items():
        pictures = [view for one in left["pictures"] if (view := drawn(one))]
        outputs[verb] = {**left, "pictures": pictures}
    good, sentence = collect.verdict(run["ledger"])
    return {
        **run,
        "outputs": outputs,
        "real": [view for one in run["real"] if (view := shown(one))],
        "slides": _slides(run["slides"], budget, missing),
        "verdict": {"good": good, "text": sentence},
    }


@contextlib.contextmanager
def _noting_missing(path: Path, missing: list[str]):
    """Leaves a picture out that cannot be read, and says so."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        missing.append(f"{path} cannot be read: {error}")


def embedded(path: Path, quality: int = 82) -> dict:
    """A picture as WebP within `SIDE`: 'src', 'width', 'height'."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _address(picture, quality=quality, method=4)


def embedded_moving(path: Path) -> dict:
    """A GIF as an animated WebP of at most `FRAMES` frames within `MOVING_SIDE`."""
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1)
        chosen = set(spaced(count, FRAMES))
        duration = image.info.get("duration", 60) * count / len(chosen)
        frames = []
        for i, frame in enumerate(ImageSequence.Iterator(image)):
            if i in chosen:
                frames.append(frame.convert("RGB"))
                frames[-1].thumbnail((MOVING_SIDE, MOVING_SIDE), Image.Resampling.LANCZOS)
    rest = {"save_all": True, "append_images": frames[1:], "duration": round(duration), "loop": 0}
    return _address(frames[0], quality=75, method=3, **rest)


def _address(picture: Image.Image, **options) -> dict:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", **options)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"src": source, "width": picture.width, "height": picture.height}


def _slides(slides: dict, budget: int, missing: list[str]) -> dict:
    """Previews within a budget of bytes: 'steps', 'panels' of {'name', 'title', 'at': step ->
    data address, 'width', 'height'}."""
    made: dict[tuple[str, int], dict] = {}
    for name, found in slides["panels"].items():
        for step, path in found.items():
            with _noting_missing(path, missing):
                made[name, step] = embedded(path)
    there = steps = [step for step in slides["steps"] if any(at == step for _, at in made)]
    while len(steps) > FEWEST and _bytes(made, steps) > budget:
        steps = [there[i] for i in spaced(len(there), len(steps) - 1)]
    panels = []
    for name in slides["panels"]:
        at = {step: made[name, step] for step in steps if (name, step) in made}
        if at:
            newest = at[max(at)]
            size = {"width": newest["width"], "height": newest["height"]}
            sources = {step: picture["src"] for step, picture in at.items()}
            panels.append({"name": name, "title": files.title(name), "at": sources, **size})
    return {"steps": steps, "panels": panels}


def _bytes(made: dict, steps: list[int]) -> int:
    return sum(len(picture["src"]) for (_, step), picture in made.items() if step in steps)
