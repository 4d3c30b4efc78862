"""The JSON that verbs leave in a run directory, as tables for their own print and for a page."""

from __future__ import annotations

from pathlib import Path

from anigan_jax.metrics.feature_scores import COLUMNS, label
from anigan_jax.metrics.prdc import RARE
from anigan_jax.report import files
from anigan_jax.report.table import Table, percent

FLOOR = (
    "Floor: {0:,} held-out images; a generator that reaches it cannot be told from a perfect one. "
    "Like the floor: {0:,} generated images, since several scores depend on how many are judged."
)
COPIES = (
    "Median distances. A ratio far below 1: generated images lie closer to training images than "
    "unseen real ones do. The closest pairs are in the picture whose name ends in closest.png."
)
NEARER = f"are nearer to a training image than {1 - RARE:.0%} of the held-out ones are."
L1 = "Mean absolute differences on held-out images, values in [-1, 1]"
# Of an evaluation: what has a table or a place of its own.
SHOWN = ("images", "step", "averaged", "sets", "protocols", "l1", "ab", "ba", "pairs")
OF_A_SET = ("n", "train", "held_out", "scores", "refused", "memorization", "lpips", "modes")


def quality(report: dict) -> list[Table]:
    """Tables of `anigan evaluate`: a set's scores, translations, protocols, what scores say."""
    about = [
        [key.replace("_mb", ", MB").replace("_", " "), item]
        for key, item in report.items()
        if key not in SHOWN and not isinstance(item, dict)
    ]
    title = f"Images of {report['images']}" if "images" in report else ""
    title = title or f"Checkpoint of step {report['step']:,}{_weights(report)}"
    found = [Table(title, rows=about)]
    names = list(report.get("l1", ()))
    for name, one in report.get("sets", {}).items():
        found += _of_set("Generated images" if name == "generated" else files.title(name), one)
        names += one["scores"]
    for way in ("ab", "ba"):
        if way in report:
            found.append(_translation(way, report[way], report.get("pairs")))
    if report.get("l1"):
        rows = [[label(name).title, value] for name, value in sorted(report["l1"].items())]
        found.append(Table(L1, rows=rows))
    for key, item in report.items():
        if key not in SHOWN and isinstance(item, dict):
            found += of_json(key, item)
    for name, protocol in report.get("protocols", {}).items():
        rows = [[key.replace("_", " "), value] for key, value in protocol.items()]
        found.append(Table(f"Protocol: {name}", rows=rows, folded=True))
    said = {label(name).title.split(" (")[0].split(",")[0]: label(name).says for name in names}
    rows = [[title, says] for title, says in said.items() if says]
    return [*found, Table("What the scores say", rows=rows, folded=True)] if rows else found


def _weights(report: dict) -> str:
    """With which weights of G the images were made."""
    known = {True: ", averaged weights", False: ", weights as trained"}
    return known.get(report.get("averaged"), "")


def _of_set(title: str, one: dict) -> list[Table]:
    """Tables of one set of generated images."""
    held = one.get("held_out")
    none = "No image was held out (--data.test), so there is no floor."
    notes = [FLOOR.format(min(held, one["n"])) if held else none]
    for name, why in one.get("refused", {}).items():
        notes.append(f"{label(name).title} is left out where it would mean nothing: {why}.")
    shown = COLUMNS if held else COLUMNS[:1]
    rows = [
        [label(name).title, *(values.get(column) for column in shown), label(name).better]
        for name, values in one["scores"].items()
    ]
    counts = f"{one['n']:,} against {one['train']:,} training images"
    counts += f", {held:,} held out" if held else ""
    columns = ["score", *(column.replace("_", " the ") for column in shown), "better"]
    found = [Table(f"{title}: {counts}", columns, rows, notes)]
    if one.get("memorization"):
        columns = ["nearest training image by", "generated", "held out", "ratio"]
        rows = _rows(one["memorization"], "fake", "held_out", "ratio")
        shares = {name: near.get("copies") for name, near in one["memorization"].items()}
        known = " and ".join(f"{percent(x)} by {n}" for n, x in shares.items() if x is not None)
        notes = [f"Copies: {known} of the generated images {NEARER}"] if known else []
        found.append(Table("Copies of training images?", columns, rows, [*notes, COPIES]))
    if one.get("lpips"):
        columns = ["pairs of", "mean", "standard error", "pairs"]
        rows = _rows(one["lpips"], "mean", "error", "pairs")
        found.append(Table("Variety (LPIPS between random pairs)", columns, rows))
    if one.get("modes"):
        found.append(_modes(one["modes"]))
    for key, item in one.items():
        if key not in OF_A_SET and isinstance(item, dict):
            found += of_json(key, item)
    return found


def _rows(found: dict, *names: str) -> list[list]:
    return [[key, *(one[name] for name in names)] for key, one in found.items()]


def _modes(found: dict) -> Table:
    rows = [
        ["combinations that the training images show", found["held"]],
        ["of them among the generated images", found["both"]],
        ["only among the generated images", found["hit"] - found["both"]],
        ["total variation of the shares (0: equal)", found["tv"]],
        ["KL divergence, nats", found["kl"]],
    ]
    return Table("Combinations of classes that a classifier finds", rows=rows)


def _translation(way: str, rows: dict, pairs: int | None) -> Table:
    columns = ["", label("psnr").title, label("lpips").title, "hair color right"]
    counts = f" of {pairs:,} pairs" if pairs else ""
    title = f"{files.title(way)} against the true partners{counts}"
    return Table(title, columns, _rows(rows, "psnr", "lpips", "hair"))


GROUPS = ("seen", "unseen")
TASKS = {"real": "Real or generated", "hair": "Hair color", "eyes": "Eye color"}
SPACES = {"d": "D's features", "untrained": "D before training", "pixels": "pixels"}


def probe(report: dict) -> list[Table]:
    """Tables of `anigan probe`: one for each task, a row for each space."""
    found = []
    kinds = {"logistic": "logistic regression", "neighbors": "nearest neighbors"}
    for name, task in report["tasks"].items():
        fit, score = (sum(both[i] for both in task["classes"].values()) for i in (0, 1))
        columns = ["", "numbers"]
        for kind in kinds.values():
            # Equally many real and generated images: both numbers are the same.
            columns += [kind] if name == "real" else [kind, "mean of classes"]
        rows = []
        for space, one in task["spaces"].items():
            row = [SPACES.get(space, space), one["numbers"]]
            for kind in kinds:
                mean = [] if name == "real" else [percent(one[kind].get("balanced"))]
                row += [one[kind]["accuracy"], *mean]
            rows.append(row)
        chance = "always the class most frequent in the fit"
        rows.append([chance, *["" if x else task["chance"] for x in map(_is_mean, columns[1:])]])
        of = TASKS.get(name, name) + (_weights(report) if name == "real" else "")
        title = (
            f"{of}, D of step {report['step']:,}: {len(task['classes'])} "
            f"classes, fitted on {fit:,} images, scored on {score:,} others"
        )
        found.append(Table(title, columns, rows, _probe_notes(task, report.get("protocol", {}))))
    refused = [[TASKS.get(name, name), why] for name, why in report["refused"].items()]
    return [*found, Table("Left out", rows=refused)] if refused else found


def _is_mean(column: str) -> bool:
    return column in ("numbers", "mean of classes")


def _probe_notes(task: dict, protocol: dict) -> list[str]:
    notes = []
    if task.get("left_out"):
        few = ", ".join(f"{c} ({a} and {b})" for c, (a, b) in task["left_out"].items())
        fewest = protocol.get("fewest_images", "too few")
        notes.append(f"Left out, with fewer than {fewest} images to fit or score: {few}.")
    late = [
        SPACES.get(space, space)
        for space, one in task["spaces"].items()
        if not one["logistic"].get("converged", True)
    ]
    if late:
        most = protocol.get("iterations", "all")
        notes.append(f"Not converged after {most} iterations: {', '.join(late)}.")
    if "neighbors" in protocol:
        notes.append(f"Nearest neighbors: {protocol['neighbors']}.")
    return notes


def accuracy(report: dict) -> list[Table]:
    """Tables of `anigan accuracy`: shares of prompts that are followed; by class, folded."""
    top = report["ceiling"]["prompts"]
    judged = next((report[group]["prompts"] for group in GROUPS if group in report), top)
    parts = [name for name in judged if name in top]
    images = next(iter(top.values()))["n"]
    mean = report["ceiling"].get("mean_over_colors", {})
    rows = [[f"ceiling: {images:,} held-out real images", *(top[p] for p in parts)]]
    rows.append(["  mean over classes", *(percent(mean.get(p)) for p in parts)])
    notes, by_class = [], []
    for name in GROUPS:
        if not report.get(name):
            continue
        group = report[name]
        got = group["prompts"]
        asked = f"{group['pairs']:,} combinations, {got[parts[0]]['n']:,} images"
        rows.append([f"{name}: {asked}", *(got[p] for p in parts)])
        # Prompts name each class equally often, as the mean over classes does.
        most = [mean.get(p, top[p]["value"]) for p in parts]
        share = [got[p]["value"] / m if m else None for p, m in zip(parts, most, strict=True)]
        rows.append(["  of the ceiling", *map(percent, share)])
        if group["pairs"] > 1:
            # The prompts of one combination cannot be shuffled.
            rows.append(["  shuffled prompts", *(group["shuffled"][p] for p in parts)])
            rows.append(["  chance", *(percent(group["chance"][p]) for p in parts)])
        for part, classes in group["by_class"].items():
            worst = sorted(classes.items(), key=lambda item: item[1]["value"])[:3]
            listed = [f"{c} {percent(s['value'])}" for c, s in worst if s["value"] < 1]
            if listed:
                notes.append(f"Least often right among {name}, {part}: {', '.join(listed)}.")
            title = f"{name}, {part} by class"
            by_class.append(Table(title, [part, "right"], [*classes.items()], folded=True))
    if "classifier" in report:
        notes.append(f"Classifier: {report['classifier']}.")
    if report.get("same_data") is False:
        notes.append("note: the classifier learned from other images than this run.")
    title = (
        f"Prompts followed, as a classifier of real images sees it: step {report['step']:,}"
        f"{_weights(report)}, {report['n']} images of each, seed {report['seed']}"
    )
    return [Table(title, ["", *parts], rows, notes), *by_class]


MEASURES = {"evaluate": quality, "accuracy": accuracy, "probe": probe}


def of_verb(verb: str, report: dict) -> list[Table]:
    """Tables of the JSON that a verb has written; any verb's, in a general layout."""
    return MEASURES[verb](report) if verb in MEASURES else of_json(verb, report)


def newest(run: Path, verb: str) -> list[Table]:
    """Tables of the newest JSON of a verb; [] where it has written none.

    Raises:
      UserError: the file is damaged.
    """
    path = files.newest(files.out_dir(run, verb), "*.json")
    if path is None:
        return []
    report = files.read_json(path)
    with files.reading(path):
        return of_verb(verb, report)


def _single(value) -> bool:
    if isinstance(value, dict):
        return "value" in value
    return not isinstance(value, list) or not any(isinstance(x, dict | list) for x in value)


def of_json(title: str, value) -> list[Table]:
    """Any JSON as tables: single values as a list, objects of objects as rows and columns."""
    if isinstance(value, list):
        value = dict(enumerate(value)) if not _single(value) else {"": value}
    if not isinstance(value, dict):
        value = {"": value}
    singles = {key: item for key, item in value.items() if _single(item)}
    rest = {key: item for key, item in value.items() if key not in singles}
    found = []
    if singles:
        found.append(Table(title, rows=[[str(key), item] for key, item in singles.items()]))
    level = {
        key: item
        for key, item in rest.items()
        if isinstance(item, dict) and item and all(map(_single, item.values()))
    }
    if level:
        columns = list(dict.fromkeys(name for item in level.values() for name in item))
        rows = [[str(key), *map(item.get, columns)] for key, item in level.items()]
        found.append(Table(title, ["", *map(str, columns)], rows))
    for key, item in rest.items():
        if key not in level:
            found += of_json(f"{title}: {key}", item)
    return found
