"""The tables of the reports beside ours, made from finished runs; each gives a `plan.Show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from anigan_jax import api, config_file
from anigan_jax.errors import UserError
from anigan_jax.metrics.attributes import Share
from anigan_jax.metrics.feature_scores import label
from anigan_jax.networks import describe
from anigan_jax.report import collect, files, tables
from anigan_jax.report.table import Table, percent
from anigan_jax.reproduce.figures import SEED, loaded, show
from anigan_jax.reproduce.plan import Planned, Work
from anigan_jax.storage import metrics_file
from anigan_jax.sweep import compare, grid

NOTHING = "-"
RANDOM = (
    "Judged by a network with random weights, which sees colors and coarse texture only: "
    "`anigan weights vgg16` brings a better judge, to a reproduction in a new --workdir."
)
# Of a run, the last share that counts as its end.
END = 0.1
PROBED = 2000
A_PAIR = 2


def lines_of(planned: Planned, name: str = "metrics") -> list[dict]:
    """The lines of metrics.jsonl or evaluation.jsonl of a run."""
    return collect.lines_of(planned.folder / f"{name}.jsonl")


def mean(lines: list[dict], key: str, low: float, high: float) -> float | None:
    """Mean of a metric over the steps in (low, high]; None where it is not there.

    Args:
      key: its name; or 'loss/g - loss/g_between', where the second may not be there.
    """
    name, _, less = key.partition(" - ")
    rows = [x for x in lines if low < x["step"] <= high and x.get(name) is not None]
    return float(np.mean([x[name] - (x.get(less) or 0.0) for x in rows])) if rows else None


def _budgets(work: Work, names: Sequence[str]) -> list[str]:
    """Sentences on how much of the report the numbers of some runs stand for."""
    found: dict[str, list[str]] = {}
    for name in filter(work.finished, names):
        found.setdefault(work.runs[name].budget(), []).append(name)
    if len(found) == 1:
        return [f"Ours: {next(iter(found))}."]
    return [f"Ours, {', '.join(same)}: {budget}." for budget, same in found.items()]


@show
def by_part(
    work: Work, name: str, keys: Mapping[str, str], reported: Mapping[int, Sequence[float | str]]
) -> Iterator[Table]:
    """Metrics after parts of the report, beside its own numbers.

    Args:
      keys: metric -> its title; reported: part -> the report's value of each.
    """
    planned = work.run(name)
    lines = lines_of(planned)
    unit = planned.training.unit
    columns = [unit, *(f"{t}, {who}" for t in keys.values() for who in ("report", "ours"))]
    rows = []
    for part, values in reported.items():
        row = [f"{part:,}"]
        low, high = planned.at(part - 1) if part > 1 else 0, planned.at(part)
        for key, value in zip(keys, values, strict=True):
            row += [value, mean(lines, key, low, high)]
        rows.append(row)
    note = f"Ours is the mean over the {unit}; the report does not say how it took its values."
    yield Table(f"By {unit}, beside the report", columns, rows, [note, *_budgets(work, [name])])


@show
def at_end(work: Work, variants: Mapping[str, Sequence], keys: Mapping[str, str]):
    """Metrics at the end of several runs, beside the report's words.

    Args:
      variants: run -> what the report says of each key.
      keys: metric -> its title.
    """
    rows = []
    for name in work.those(variants):
        row, said, steps = [name], variants[name], work.runs[name].steps
        lines = lines_of(work.runs[name])
        for key, value in zip(keys, said, strict=True):
            row += [value, mean(lines, key, (1 - END) * steps, steps)]
        rows.append(row)
    columns = ["run", *(f"{t}, {who}" for t in keys.values() for who in ("report", "ours"))]
    note = f"Ours is the mean over the last {percent(END)} of the run."
    yield Table("Beside the report", columns, rows, [note, *_budgets(work, list(variants))])


@show
def ranges(
    work: Work, names: Sequence[str], after: int, keys: Mapping[str, tuple[str, str]]
) -> Iterator[Table]:
    """How far metrics move after a part of the report.

    Args:
      keys: metric -> (title, what the report says).
    """
    rows = []
    for name in work.those(names):
        planned = work.runs[name]
        lines = [line for line in lines_of(planned) if line["step"] > planned.at(after)]
        for key, (title, said) in keys.items():
            values = [line[key] for line in lines if line.get(key) is not None]
            if values:
                low, middle, high = np.percentile(values, [5, 50, 95])
                rows.append([name, title, said, f"{low:.3g} to {high:.3g} ({middle:.3g})"])
    unit = work.runs[names[0]].training.unit
    note = "Ours: 5th to 95th percentile, and the median."
    columns = ["run", "metric", "report", "ours"]
    title = f"After {unit} {after:,} of the report"
    yield Table(title, columns, rows, [note, *_budgets(work, names)])


@show
def summaries(work: Work, config: str, totals: Mapping[str, int]) -> Iterator[Table]:
    """Parameters of a config's networks at full width, beside the report's totals.

    Args:
      totals: network -> parameters and statistics in the report.
    """
    found = describe.describe(config_file.load(config).method.networks())
    rows = []
    for name, total in totals.items():
        ours = found[name]["parameters"] + found[name]["statistics"]
        rows.append([name, total, ours, total == ours])
    columns = ["network", "report", "ours", "equal"]
    note = "Ours is counted from the shapes of the config at full width, whatever the budget."
    yield Table("Parameters and statistics", columns, rows, [note])
    for name in totals:
        layers = [
            [row["layer"], "x".join(map(str, row["shape"])), row["parameters"] + row["statistics"]]
            for row in found[name]["layers"]
        ]
        yield Table(name, ["layer", "output", "parameters"], layers, folded=True)


@show
def scores(
    work: Work, variants: Mapping[str, Sequence[str]], parts: int | Mapping[str, int], said: str
) -> Iterator[Table]:
    """Scores of variants after a part of the report, over their seeds.

    Args:
      variants: title -> runs that differ by their seed.
      parts: the part; or title -> part, where the report trains them for different lengths.
      said: which one the report finds best.
    """
    at = dict.fromkeys(variants, parts) if isinstance(parts, int) else parts
    judged = {v: [_judged(work, name, at[v]) for name in names] for v, names in variants.items()}
    counts = {v: _count(work, names) for v, names in variants.items()}
    names = [name for group in variants.values() for name in group]
    work.those(names)
    unit = work.runs[names[0]].training.unit
    when = f" at {unit} {parts:,} of the report" if isinstance(parts, int) else " in the end"
    rest = [f"The report: {said}.", *_budgets(work, names)]
    yield _scored(work, judged, f"Scores{when}", rest, counts)


def _count(work: Work, names: Sequence[str]) -> int | None:
    """How many images of the first of some runs were judged; None where none is there."""
    found = [work.runs[name].folder / "protocol.json" for name in names if work.finished(name)]
    found = [path for path in found if path.exists()]
    if not found:
        return None
    told = files.read_json(found[0])["n"]
    # Of a translation: the way to anime.
    return told.get("ab") or next(iter(told.values()))


@show
def equal_updates(work: Work, variants: Mapping[str, Sequence[str]], said: str) -> Iterator[Table]:
    """Scores of variants at as many updates of G and D together as the shortest run has."""
    runs = {}
    for variant, names in variants.items():
        runs[variant] = [_with_updates(work.run(name), variant) for name in names]
    every = [run for group in runs.values() for run in group]
    most = compare.limit(every, 0)
    judged = {
        variant: [
            {key: compare.at(run, key, most) for key in compare.score_names([run])} for run in group
        ]
        for variant, group in runs.items()
    }
    names = [name for group in variants.values() for name in group]
    rest = [f"The report: {said}.", compare.RULE.split(" Best:")[0], *_budgets(work, names)]
    yield _scored(work, judged, f"Scores at {most:,} updates of G and D together", rest)


def _with_updates(planned: Planned, variant: str) -> compare.Run:
    trained = api.load(planned.folder)
    images = len(api.data_of(planned.config).images)
    trial = grid.Trial(variant, planned.config.seed, planned.folder, planned.config, ())
    pace = grid.pace(planned.config, trained.method, images)
    return compare.read(trial, grid.updates_done(trial, pace))


def _judged(work: Work, name: str, part: int) -> dict:
    """The line of evaluation.jsonl of a part; {} where the run is not there."""
    if not work.finished(name):
        return {}
    step = work.runs[name].at(part)
    lines = [line for line in lines_of(work.runs[name], "evaluation") if line["step"] == step]
    # Of a translation: the way to anime, so that it stands beside what comes from noise.
    return {k.removeprefix("ab/"): v for k, v in (lines[-1] if lines else {}).items()}


def _scored(
    work: Work,
    judged: Mapping[str, list[dict]],
    title: str,
    notes: list[str],
    counts: Mapping[str, int | None] = MappingProxyType({}),
) -> Table:
    """A row for each variant, and which is ahead by each score.

    Args:
      counts: variant -> how many of its images were judged, where these may differ.
    """
    found = {
        k for group in judged.values() for line in group for k, v in line.items() if v is not None
    }
    names = [n for n in compare.shown(sorted(found - set(collect.NO_METRIC))) if label(n).headline]
    if not names:
        raise UserError("no score was recorded of its runs")
    cells = {
        name: {v: compare.spread([x.get(name) for x in group]) for v, group in judged.items()}
        for name in names
    }
    rows = [[v, len(group), *(_cell(cells[n][v]) for n in names)] for v, group in judged.items()]
    ahead, fallen = [], set()
    unequal = len({n for n in counts.values() if n}) > 1
    for name in names:
        # All scores but KID follow the number of images.
        if unequal and not name.startswith("kid-"):
            continue
        # Of a translation back: the variety of its own direction.
        own = f"{name.rpartition('/')[0]}/{compare.variety_of(name)}".lstrip("/")
        out = {v for v, group in judged.items() if any(_least(x.get(own)) for x in group)}
        fallen |= out
        order = compare.order(cells[name], label(name).better, out)
        if order:
            sure = "" if order["clear"] else " (the seeds overlap, or there is one)"
            ahead.append(f"{label(name).title}: {order['best']}{sure}")
    if unequal:
        told = ", ".join(f"{v} {n:,}" for v, n in counts.items() if n)
        notes = [*notes, f"Images judged: {told}. Scores other than KID depend on this number."]
    if fallen:
        least = f"{metrics_file.LEAST_VARIETY} of the real images' variety"
        notes = [*notes, f"Not ahead by a KID or FD, with less than {least}: {', '.join(fallen)}."]
    notes = [*notes, f"Ahead here: {'; '.join(ahead)}."] if ahead else notes
    notes = [*notes, RANDOM] if work.place.judge == "random" else notes
    titles = [f"{label(n).title}, {label(n).better} is better" for n in names]
    return Table(title, ["", "seeds", *titles], rows, notes)


def _least(variety: float | None) -> bool:
    return variety is not None and variety < metrics_file.LEAST_VARIETY


def _cell(found: dict | None) -> str:
    if found is None:
        return NOTHING
    spread = "" if found["deviation"] is None else f" ± {found['deviation']:.2g}"
    return f"{found['mean']:.4g}{spread}"


@show
def retrieval(work: Work, name: str) -> Iterator[Table]:
    """How well a text encoder matches held-out images and captions."""
    lines = lines_of(work.run(name), "evaluation")
    if not lines:
        raise UserError(f"{name} held out no images; nothing was matched")
    found = {k: v for k, v in lines[-1].items() if "/" in k}
    rows = [
        [key.replace("_", " ").replace("/", ": "), NOTHING, percent(v)] for key, v in found.items()
    ]
    columns = ["share of held-out images that is matched", "report", "ours"]
    yield Table("Retrieval", columns, rows, ["The report prints none.", *_budgets(work, [name])])


@show
def right_colors(
    work: Work, reported: Mapping[str, int], judge: str, parts: Sequence[int]
) -> Iterator[Table]:
    """Shares of prompts that are obeyed, by a classifier, over the training of several runs.

    Args:
      reported: run -> the part after which the report sees the right color.
      judge: the run of the classifier.
    """
    from anigan_jax.evaluation import prompt_accuracy

    classifier = loaded(work.run(judge)).model
    there = work.those(reported)
    unit = work.runs[there[0]].training.unit
    shares: dict[tuple[str, int], dict[str, Share]] = {}
    for name in there:
        for part in parts:
            model = loaded(work.runs[name], part).model
            found = prompt_accuracy.measure(model, classifier, A_PAIR, SEED)
            shares[name, part] = found["seen"]["prompts"]
    columns = [unit, *(f"{name}, {what}" for name in there for what in ("hair", "eyes"))]
    rows = []
    for part in parts:
        cells = [shares[name, part][what] for name in there for what in ("hair", "eyes")]
        rows.append([f"{part:,}", *map(prompt_accuracy.as_json, cells)])
    # Of one part nobody can say what was the first.
    notes = [
        f"{name}: the report sees the right color from {unit} {part}; ours has the hair right for "
        f"half of the prompts {_first(shares, name, parts, unit)}."
        for name, part in reported.items()
        if name in there and len(parts) > 1
    ]
    top = lines_of(work.run(judge), "evaluation")[-1:]
    able = [f"{what} {percent(top[0].get(f'accuracy/{what}'))}" for what in ("hair", "eyes") if top]
    told = f", which tells of held-out real faces {', '.join(able)}" if able else ""
    each = f"{A_PAIR} images for each pair of colors"
    notes.append(f"As the classifier {judge} sees it{told}; {each}.")
    yield Table("Prompts obeyed", columns, rows, [*notes, *_budgets(work, [*there, judge])])


def _first(shares: dict, name: str, parts: Sequence[int], unit: str) -> str:
    right = [part for part in parts if shares[name, part]["hair"].value >= 0.5]
    return f"from {unit} {right[0]}" if right else "nowhere"


@show
def probe(work: Work, name: str, said: str) -> Iterator[Table]:
    """What classifiers tell by D's features, by those of an untrained D, and by pixels."""
    from anigan_jax.evaluation import linear_probe, prompt_accuracy

    planned = work.run(name)
    trained, pack = loaded(planned), api.data_of(planned.config)
    found = linear_probe.measure(trained.config, trained.model, pack, PROBED, SEED)
    report = prompt_accuracy.as_json(found)
    real = report["tasks"]["real"]["spaces"]
    rows = [
        [title, said_of, real[space][kind]["accuracy"]]
        for title, said_of, space, kind in (
            ("D's features, a linear classifier", "below kNN", "d", "logistic"),
            ("pixels, nearest neighbors (kNN)", "better", "pixels", "neighbors"),
            ("D's features, nearest neighbors", NOTHING, "d", "neighbors"),
        )
    ]
    columns = ["told real from generated by", "report", "ours"]
    yield Table("D against kNN", columns, rows, [f"The report: {said}.", *_budgets(work, [name])])
    for table in tables.probe(report):
        yield Table(table.title, table.columns, table.rows, table.notes, folded=True)


@show
def speed(work: Work, *names: str) -> Iterator[Table]:
    """What each run was and took."""
    rows = []
    for name in names:
        planned = work.runs[name]
        seconds = collect.seconds(lines_of(planned)) if work.finished(name) else None
        took = None if seconds is None else f"{seconds / 60:.1f} min"
        rows.append([name, planned.training.config, planned.images, took])
    columns = ["run", "config", "images seen", "time in steps"]
    yield Table("The models", columns, rows, _budgets(work, names))
