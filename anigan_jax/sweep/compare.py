"""What a sweep found: scores at equal updates, by variant, as tables and pictures."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anigan_jax import config_file
from anigan_jax.metrics.feature_scores import label
from anigan_jax.report import collect, files
from anigan_jax.report.series import SMOOTHED, running_mean
from anigan_jax.report.table import Table
from anigan_jax.sampling import photos
from anigan_jax.storage import images, metrics_file
from anigan_jax.sweep.grid import Goal, Trial

_REST = (
    "each is read at that number on the straight line between a run's two nearest "
    "judged checkpoints. Best: of these up to there. Mean ± standard deviation "
    "over the seeds. No variant is ahead, and no checkpoint best, by a KID or FD that it has "
    f"with less than {metrics_file.LEAST_VARIETY} of the real images' variety."
)
RULE = (
    "An update is one repeat of G or of D. Scores are compared at equal updates of G and D "
    f"together: {_REST}"
)
RULES = {
    "updates": RULE,
    "seconds": "Seconds are those of training steps alone; compiling, judging and saving come on "
    f"top. Scores are compared at equal seconds: {_REST}",
}
AXES = {"updates": "updates of G and D together", "seconds": "seconds of training"}
# What a collapsed generator whose one face is good can win.
WON_BY_COLLAPSE = ("kid-", "fd-")
LOSSES = ("loss/g", "loss/d")
ACROSS = 8
GAP = 2


class Run(NamedTuple):
    """What a finished run has left.

    Attributes:
      updates: (S + 1,) of G and D together after 0, 1, ... S steps; or seconds of training,
        where a sweep counts these.
      lines: of metrics.jsonl; judged: of evaluation.jsonl.
      floor: score -> what real images get.
    """

    trial: Trial
    updates: np.ndarray
    lines: list[dict]
    judged: list[dict]
    floor: dict[str, float]


def read(trial: Trial, updates: np.ndarray) -> Run:
    """Reads a run folder."""
    lines, judged = (
        [line for line in collect.lines_of(trial.folder / name) if line["step"] < len(updates)]
        for name in ("metrics.jsonl", "evaluation.jsonl")
    )
    path = trial.folder / "protocol.json"
    floor = files.read_json(path).get("floor", {}) if path.exists() else {}
    return Run(trial, updates, lines, judged, floor)


def score_names(runs: list[Run]) -> list[str]:
    """Names of all scores, in the order of the lines."""
    lines = itertools.chain.from_iterable(run.judged for run in runs)
    keys = (key for line in lines for key, value in line.items() if isinstance(value, float))
    return list(dict.fromkeys(keys))


def shown(names: list[str]) -> list[str]:
    """The scores that tables and pictures show: the headline ones and one's own, or else all."""
    labels = {name: label(name) for name in names}
    return [name for name, of in labels.items() if of.headline or of.own] or names


def points(run: Run, name: str) -> np.ndarray:
    """(P, 2): updates and value of each judged checkpoint that has a score."""
    found = [(run.updates[line["step"]], line[name]) for line in run.judged if name in line]
    return np.array([pair for pair in found if pair[1] is not None], float).reshape(-1, 2)


def at(run: Run, name: str, updates: float) -> float | None:
    """A score at a number of updates; None outside of the judged stretch."""
    x, y = points(run, name).T
    if not len(x) or not x[0] <= updates <= x[-1]:
        return None
    return float(np.interp(updates, x, y))


def best(run: Run, name: str, updates: float) -> float | None:
    """The best value of a score up to a number of updates; None where none is better."""
    found = [y for x, y in points(run, name) if x <= updates and varied(run, name, x)]
    last = at(run, name, updates)
    found += [] if last is None or not varied(run, name, updates) else [last]
    choose = {"lower": min, "higher": max}.get(label(name).better)
    return float(choose(found)) if choose and found else None


def varied(run: Run, name: str, updates: float) -> bool:
    """Whether a run's score counts at a number of updates: it does unless collapse wins it.

    The variety is that which the score's own judge sees.
    """
    own = variety_of(name)
    if not own:
        return True
    others = [other for other in score_names([run]) if other.rpartition("/")[2] == own]
    kept = [at(run, other, updates) for other in others]
    return min((x for x in kept if x is not None), default=1.0) >= metrics_file.LEAST_VARIETY


def variety_of(name: str) -> str:
    """'variety-vgg16' of 'ab/kid-vgg16', which collapse can win; '' of a score that it cannot."""
    if not any(part in name for part in WON_BY_COLLAPSE):
        return ""
    return f"variety-{name.rpartition('/')[2].partition('-')[2]}"


def limit(runs: list[Run], wanted: int) -> int:
    """The most updates at which all runs can be compared; at most `wanted`, where it is not 0."""
    ends = [run.updates[run.judged[-1]["step"] if run.judged else -1] for run in runs]
    return int(min([*ends, wanted] if wanted else ends))


def spread(values: list[float | None]) -> dict | None:
    """Mean and standard deviation (None of one value) of the seeds; None where one lacks."""
    if not values or any(value is None for value in values):
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "values": values}


def order(cells: dict[str, dict | None], better: str, out: Container[str] = ()) -> dict | None:
    """Which variant is ahead, but for those that are `out`.

    Returns:
      'best': the one with the best mean; 'clear': whether its worst seed is better than
      every other variant's best, of two or more seeds each. None where that is not known, or
      where all are equal.
    """
    if better not in ("lower", "higher") or len(cells) < 2 or None in cells.values():
        return None
    cells = {name: cell for name, cell in cells.items() if name not in out}
    if not cells or (not out and len({cell["mean"] for cell in cells.values()}) == 1):
        return None
    sign = 1 if better == "lower" else -1
    first = min(cells, key=lambda name: sign * cells[name]["mean"])
    values = {name: [sign * value for value in cell["values"]] for name, cell in cells.items()}
    others = [value for name, seeds in values.items() if name != first for value in seeds]
    several = all(len(seeds) > 1 for seeds in values.values())
    return {"best": first, "clear": several and max(values[first]) < min(others, default=np.inf)}


def mean_of(run: Run, name: str, low: float, high: float) -> float | None:
    """Mean of a metric over the steps that end within (low, high] updates."""
    found = [
        line[name]
        for line in run.lines
        if line.get(name) is not None and low < run.updates[line["step"]] <= high
    ]
    return float(np.mean(found)) if found else None


def compare(runs: list[Run], goal: Goal, about: dict) -> dict:
    """The whole report, JSON; `about` is what was asked for."""
    names, most = score_names(runs), limit(runs, goal.amount)
    by_variant: dict[str, list[Run]] = {}
    for run in runs:
        by_variant.setdefault(run.trial.variant, []).append(run)

    def over(found) -> dict[str, dict | None]:
        return {v: spread([found(run) for run in group]) for v, group in by_variant.items()}

    fractions = range(1, (goal.points or 10) + 1)
    stages = {}
    for name in names:
        better, rows = label(name).better, []
        for k in fractions:
            updates = round(most * k / len(fractions))
            cells = over(lambda run, name=name, updates=updates: at(run, name, updates))
            out = [
                variant
                for variant, group in by_variant.items()
                if not all(varied(run, name, updates) for run in group)
            ]
            ahead = order(cells, better, out)
            rows.append({goal.unit: updates, "variants": cells, "order": ahead})
        stages[name] = rows
    late = 0.9 * most
    return {
        **about,
        "unit": goal.unit,
        "rule": RULES[goal.unit],
        "compared_at": most,
        "floor": runs[0].floor,
        "stages": stages,
        "best": {name: over(lambda run, name=name: best(run, name, most)) for name in names},
        "accuracy/d": over(lambda run: mean_of(run, "accuracy/d", 0, most)),
        **{f"late {name}": over(lambda r, n=name: mean_of(r, n, late, most)) for name in LOSSES},
        "runs": [_of_run(run, most, goal.unit, about["config"]) for run in runs],
    }


def _of_run(run: Run, most: int, unit: str, config: str) -> dict:
    trial, steps = run.trial, len(run.updates) - 1
    words = (
        "anigan",
        "train",
        trial.source or config,
        "--workdir",
        str(trial.folder),
        *trial.flags,
    )
    return {
        "variant": trial.variant,
        "seed": trial.seed,
        "folder": str(trial.folder),
        "command": shlex.join(
            [*config_file.without(words, "run.steps", "run.epochs"), "--run.steps", str(steps)]
        ),
        "steps": steps,
        unit: int(run.updates[-1]),
        # Whole steps within the updates that are compared.
        "compared_steps": int(np.searchsorted(run.updates, most, "right")) - 1,
        "warnings": sum(len(line.get("warnings") or ()) for line in (*run.lines, *run.judged)),
        "judged": [{unit: int(run.updates[line["step"]]), **line} for line in run.judged],
    }


def tables(found: dict) -> list[Table]:
    """The report: variants at equal updates, then each score over the training."""
    names, most = shown(list(found["stages"])), found["compared_at"]
    variants, seeds = list(found["accuracy/d"]), len(found["seeds"])
    unit = found["unit"]
    title = f"{found['config']}: {len(variants)} variants x {seeds} seeds, at {most:,} {unit}"
    none = "Nothing was judged: losses say little of how good images are."
    all_tables = [
        Table(
            title,
            *_summary(found, names, variants),
            [found["rule"], *[none][: not names], *found.get("diverged", ())],
        )
    ]
    for name in names:
        of, floor = label(name), found["floor"].get(name)
        aim = f", {of.better} is better" if of.better else ""
        real = "" if floor is None else f"; real images: {floor:.4g}"
        rows = [
            [row[unit], *(cell(row["variants"][v]) for v in variants), _ahead(row)]
            for row in found["stages"][name]
        ]
        title = f"{of.title} over the training{aim}{real}"
        all_tables.append(Table(title, [unit, *variants, "ahead"], rows))
    return all_tables


def _summary(found: dict, names: list[str], variants: list[str]) -> tuple[list[str], list]:
    """Head and rows of the table of variants."""
    head = ["variant", "steps"]
    directed = [name for name in names if label(name).better in ("lower", "higher")]
    for name in names:
        title = label(name).title
        head += [title, f"best {title}"] if name in directed else [title]
    head += ["accuracy of D", *([] if names else LOSSES), "warnings"]
    rows = []
    for variant in variants:
        own = [run for run in found["runs"] if run["variant"] == variant]
        row = [variant, _range([run["compared_steps"] for run in own])]
        for name in names:
            row += [cell(found["stages"][name][-1]["variants"][variant])]
            row += [cell(found["best"][name][variant])] if name in directed else []
        row += [cell(found["accuracy/d"][variant])]
        row += [] if names else [cell(found[f"late {name}"][variant]) for name in LOSSES]
        rows.append([*row, str(sum(run["warnings"] for run in own))])
    return head, rows


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def cell(found: dict | None) -> str:
    """'0.0312 ± 0.0021'."""
    if found is None:
        return "-"
    deviation = found["deviation"]
    return f"{found['mean']:.4g}" + ("" if deviation is None else f" ± {deviation:.2g}")


def _ahead(row: dict) -> str:
    told = row["order"]
    if told is None:
        return "-"
    if told["clear"]:
        return f"{told['best']}, with every seed"
    several = all(len(c["values"]) > 1 for c in row["variants"].values())
    return f"{told['best']}, " + ("but seeds overlap" if several else "of one seed")


def draw(runs: list[Run], found: dict, path: Path) -> Path:
    """Each score over updates (losses where nothing was judged): seeds thin, their mean bold.

    The dashed line is what real images get.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = shown(list(found["stages"]))
    panels = names or list(LOSSES)
    figure = Figure(figsize=(9, 1 + 3.2 * len(panels)), dpi=100, layout="constrained")
    for i, name in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, i + 1)
        axes.set_ylabel(label(name).title if names else name)
        axes.set_xlabel(AXES[found["unit"]])
        axes.set_xlim(0, found["compared_at"])
        axes.grid(alpha=0.3)
        for number, variant in enumerate(found["accuracy/d"]):
            group = [run for run in runs if run.trial.variant == variant]
            lines = [_line(run, name, bool(names), found["compared_at"]) for run in group]
            lines = [line for line in lines if len(line)]
            for line in lines:
                axes.plot(*line.T, color=f"C{number}", alpha=0.4, lw=0.8)
            x, y = _mean(lines)
            axes.plot(x, y, color=f"C{number}", lw=2.2, label=variant)
        if found["floor"].get(name) is not None:
            axes.axhline(found["floor"][name], color="black", ls="--", lw=1, label="real images")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)
    return path


def _line(run: Run, name: str, judged: bool, most: int) -> np.ndarray:
    """(P, 2) of a curve: judged points, or a running mean of a loss."""
    if judged:
        return points(run, name)
    told = [(run.updates[m["step"]], m[name]) for m in run.lines if m.get(name) is not None]
    found = np.array([pair for pair in told if pair[0] <= most], float).reshape(-1, 2)
    mean = running_mean(found[:, 1], max(1, len(found) // SMOOTHED))
    return np.column_stack([found[:, 0], mean])


def _mean(lines: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of curves where all of them are known."""
    if not lines:
        return np.zeros(0), np.zeros(0)
    low, high = max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines)
    x = np.unique(np.concatenate([line[:, 0] for line in lines]))
    x = x[(x >= low) & (x <= high)]
    return x, np.mean([np.interp(x, *line.T) for line in lines], axis=0)


def samples(runs: list[Run], most: int, path: Path) -> Path | None:
    """A row of images for each variant, its first seed at the last preview within `most` updates.

    None where no run has such a preview.
    """
    rows, labels = [], []
    for run in runs:
        if run.trial.variant in labels:
            continue
        place = _preview(run, most)
        if place:
            rows.append(_tiles(place, run.trial.config.method.size))
            labels.append(run.trial.variant)
    if not rows:
        return None
    across, side = min(map(len, rows)), max(row.shape[1] for row in rows)
    rows = [photos.enlarged(row[:across], side) for row in rows]
    return images.save_image(images.table(rows, labels), path)


def _preview(run: Run, most: int) -> Path | None:
    for found in files.previews(run.trial.folder).values():
        steps = [s for s in found if s < len(run.updates) and run.updates[s] <= most]
        if steps:
            return found[max(steps)]
    return None


def _tiles(path: Path, size: int) -> np.ndarray:
    """The first images of a grid of squares, at most `ACROSS`, (n, size, size, 3)."""
    sheet = np.asarray(Image.open(path).convert("RGB"))[GAP : GAP + size]
    starts = range(GAP, sheet.shape[1] - size + 1, size + GAP)
    return np.stack([sheet[:, left : left + size] for left in starts][:ACROSS])
