"""The numbers that verbs have left in a run folder, as tables for a page; no JAX."""

from __future__ import annotations

import re
from pathlib import Path

from anigan_jax.metrics.feature_scores import BETTER, COLUMNS
from anigan_jax.report.files import direction, newest, read_json, reading

# Of a score's name: how it is called, and what it says.
_PANEL = {
    "kid": ("KID", "squared distance of the two sets' features by a kernel; 0 is alike"),
    "fd": ("Fréchet distance", "distance of two normal laws fitted to the features"),
    "mind": ("MIND", "distance of the features along random directions"),
    "precision": ("Precision", "share of generated images that lie among real ones"),
    "recall": ("Recall", "share of real images that lie among generated ones"),
    "density": ("Density", "how many real neighborhoods hold a generated image"),
    "coverage": ("Coverage", "share of real images with a generated one close by"),
}
# Of a score's name: how it is called, what is better, what it says.
SCORES = {
    **{name: (title, BETTER[name], says) for name, (title, says) in _PANEL.items()},
    "change": ("Change", "", "mean absolute difference of a photo and its translation"),
    "cycle": ("Cycle", "lower", "mean absolute difference of an image and its way there and back"),
    "identity": ("Identity", "lower", "what the translation changes in an image of its target"),
    "accuracy": ("Accuracy", "higher", "share of held-out images told right"),
    "psnr": ("PSNR, dB", "higher", "peak signal to noise against the true partner"),
    "lpips": ("LPIPS", "", "perceptual distance"),
}


def score(name: str) -> dict[str, str]:
    """How a score is called: 'ab/kid-vgg16' -> title, 'better', 'says'."""
    front, _, rest = name.rpartition("/")
    base, _, network = rest.partition("-")
    if base not in SCORES and front in SCORES:
        # 'accuracy/hair', 'cycle/a'
        title, better, says = SCORES[front]
        return {"name": name, "title": f"{title}: {rest}", "better": better, "says": says}
    title, better, says = SCORES.get(base, (name, "", ""))
    if network and base in SCORES:
        title += f" ({network})"
    if front and base in SCORES:
        title += f", {direction(front)}"
    return {"name": name, "title": title, "better": better, "says": says}


def panel(run: Path) -> dict | None:
    """The newest evaluate/step_*.json: 'step', 'about', 'protocols' by network, 'sets', 'tables',
    'closest'; None where there is none."""
    path = newest(run / "evaluate", "step_*.json")
    if path is None:
        return None
    found = read_json(path)
    with reading(path):
        step = int(found.pop("step"))
        averaged = found.pop("averaged", None)
        weights = {True: ", averaged weights", False: ", weights as trained"}.get(averaged, "")
        if isinstance(found.get("l1"), dict):
            found["l1"] = {score(name)["title"]: value for name, value in found["l1"].items()}
        closest = sorted(path.parent.glob(f"{path.stem}*closest.png"))
        return {
            "step": step,
            "about": f"Checkpoint of step {step:,}{weights}",
            "protocols": {name: dict(one) for name, one in found.pop("protocols", {}).items()},
            "sets": [_set(name, one) for name, one in found.pop("sets", {}).items()],
            "tables": [
                table
                for name, value in found.items()
                if isinstance(value, dict)
                for table in tables_of(TABLES.get(name, direction(name)), value)
            ],
            "closest": [{"path": p, "caption": _closest(p)} for p in closest],
        }


TABLES = {
    "l1": "Mean absolute differences on held-out images, values in [-1, 1]",
    "ab": "A to B against the true partners",
    "ba": "B to A against the true partners",
}


def _closest(path: Path) -> str:
    which = re.sub(r"^step_\d+_?|_?closest$", "", path.stem)
    rest = f" ({direction(which)})" if which else ""
    return f"The images closest to a training image, and that one{rest}"


def _set(name: str, one: dict) -> dict:
    """A set of a panel, its rows in order of the scores."""
    refused = dict(one.get("refused", {}))
    rows = [
        {**score(key), **{column: values.get(column) for column in COLUMNS}}
        for key, values in one["scores"].items()
    ]
    rest = {k: v for k, v in one.items() if k not in _SHOWN and isinstance(v, dict)}
    tables = [table for key, value in rest.items() for table in tables_of(key, value)]
    return {
        "title": "Generated images" if name == "generated" else direction(name),
        "n": one["n"],
        "train": one["train"],
        "held_out": one.get("held_out"),
        "rows": rows,
        "refused": [{**score(key), "why": str(why)} for key, why in refused.items()],
        "memorization": _columns(one.get("memorization"), ("fake", "held_out", "ratio")),
        "lpips": _columns(one.get("lpips"), ("mean", "error", "pairs")),
        "tables": ([_modes(one["modes"])] if one.get("modes") else []) + tables,
    }


def _columns(found: dict | None, names: tuple[str, ...]) -> dict[str, dict]:
    return {key: {name: one[name] for name in names} for key, one in (found or {}).items()}


def _modes(found: dict) -> dict:
    rows = [
        ["pairs that the training images show", cell(found["held"])],
        ["of them among the generated images", cell(found["both"])],
        ["only among the generated images", cell(found["hit"] - found["both"])],
        ["total variation of the shares (0: alike)", cell(found["tv"])],
        ["KL divergence, nats", cell(found["kl"])],
    ]
    title = "Pairs of colors that a classifier finds"
    return {"title": title, "columns": [], "rows": rows, "folded": False}


_SHOWN = ("n", "train", "held_out", "scores", "refused", "memorization", "lpips", "modes")


def tables(run: Path) -> list[dict]:
    """The newest accuracy and probe as tables: 'section', 'title', 'columns', 'rows', 'folded'."""
    found = []
    for section, make in (("accuracy", _accuracy), ("probe", _probe)):
        path = newest(run / section, "*.json")
        if path:
            report = read_json(path)
            with reading(path):
                found += [{"section": section, **table} for table in make(report)]
    return found


TASKS = {"real": "real or generated", "hair": "hair color", "eyes": "eye color"}
SPACES = {"d": "D's features", "untrained": "D before training", "pixels": "pixels"}


def _probe(report: dict) -> list[dict]:
    columns = ["", "numbers", "logistic regression", "nearest neighbors"]
    found = []
    for name, task in report["tasks"].items():
        rows = [
            [
                SPACES.get(space, space),
                cell(one["numbers"]),
                cell(one["logistic"]["accuracy"]),
                cell(one["neighbors"]["accuracy"]),
            ]
            for space, one in task["spaces"].items()
        ]
        rows.append(["always the most frequent class", "-", *2 * [cell(task["chance"])]])
        title = f"{TASKS.get(name, name)}: {len(task['classes'])} classes, step {report['step']:,}"
        found.append({"title": title, "columns": columns, "rows": rows, "folded": False})
    for name, why in report["refused"].items():
        title = f"{TASKS.get(name, name)} is left out: {why}"
        found.append({"title": title, "columns": [], "rows": [], "folded": False})
    return found


def _accuracy(report: dict) -> list[dict]:
    parts = ("hair", "eyes", "both")

    def row(name: str, values: dict) -> list[str]:
        return [name, *(cell(values.get(p), percent=True) for p in parts)]

    top = report["ceiling"]["prompts"]
    rows = [row(f"ceiling: classifier on {top['hair']['n']:,} held-out real images", top)]
    by_class = []
    for name in ("seen", "unseen"):
        group = report.get(name)
        if not group:
            continue
        rows.append(row(f"{name}: {group['prompts']['hair']['n']:,} prompts", group["prompts"]))
        if group["pairs"] > 1:
            rows.append(row(f"{name}, prompts shuffled", group["shuffled"]))
            rows.append(row(f"{name}, chance", group["chance"]))
        by_class += [
            {"columns": [part, "right"], "rows": [[c, cell(v)] for c, v in classes.items()]}
            | {"title": f"{name}, {part} by color", "folded": True}
            for part, classes in group["by_class"].items()
        ]
    title = f"step {report['step']:,}, {report['n']} images a pair, seed {report['seed']}"
    main = {"title": title, "columns": ["", *parts], "rows": rows, "folded": False}
    return [main, *by_class]


def cell(value, percent: bool = False) -> str:
    """A value as a table shows it; shares with their interval."""
    if isinstance(value, dict) and "value" in value:
        share = f"{100 * value['value']:.1f} %"
        if value.get("low") is None or value.get("high") is None:
            return share
        return f"{share} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if percent else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return str(value)


def _single(value) -> bool:
    if isinstance(value, dict):
        return "value" in value
    return not isinstance(value, list) or not any(isinstance(x, dict | list) for x in value)


def tables_of(title: str, value) -> list[dict]:
    """Any JSON as tables: single values as a list, objects of objects as rows and columns."""
    if isinstance(value, list):
        value = dict(enumerate(value)) if not _single(value) else {"": value}
    if not isinstance(value, dict):
        value = {"": value}
    singles = {key: item for key, item in value.items() if _single(item)}
    rest = {key: item for key, item in value.items() if key not in singles}
    found = []
    if singles:
        rows = [[str(key), cell(item)] for key, item in singles.items()]
        found.append({"title": title, "columns": [], "rows": rows, "folded": False})
    level = {
        key: item
        for key, item in rest.items()
        if isinstance(item, dict) and item and all(map(_single, item.values()))
    }
    if level:
        columns = list(dict.fromkeys(str(name) for item in level.values() for name in item))
        rows = [
            [str(key), *(cell({str(k): v for k, v in item.items()}.get(name)) for name in columns)]
            for key, item in level.items()
        ]
        found.append({"title": title, "columns": ["", *columns], "rows": rows, "folded": False})
    for key, item in rest.items():
        if key not in level:
            found += tables_of(f"{title}: {key}", item)
    return found
