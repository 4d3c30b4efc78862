"""The model card of a hub folder, as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anigan_jax
from anigan_jax.errors import printable
from anigan_jax.export import about
from anigan_jax.metrics.feature_scores import COLUMNS, label
from anigan_jax.opened import Opened
from anigan_jax.report import collect, files
from anigan_jax.sampling import grids
from anigan_jax.storage.run_dir import out_dir
from anigan_jax.storage.safetensors import SUFFIX

CALLS = {
    "unconditional-image-generation": "images = run.generate(64, seed=0)",
    "text-to-image": 'images = run.generate(8, prompt="{prompt}")',
    "image-to-image": """\
photo = ImageOps.exif_transpose(Image.open("me.jpg")).convert("RGB")
photo = ImageOps.fit(photo, ({size}, {size}))
images = run.translate(np.asarray(photo)[None])""",
}
IMPORTS = {"image-to-image": ("import numpy as np", "from PIL import Image, ImageOps", "")}
TAKES = {
    "unconditional-image-generation": "from noise",
    "text-to-image": "from words",
    "image-to-image": "from images",
}


def card(trained: Opened, onnx: dict[str, str], data_license: str) -> str:
    """README.md of a hub folder.

    Args:
      onnx: name of each ONNX file -> what was found of it.
    """
    task, method = _task(trained), trained.config.method
    size, channels = method.size, method.channels
    version = anigan_jax.__version__
    name = printable(trained.config.name)
    ones = {"ema": "averaged weights", "raw": "weights as trained"}[grids.weights_of(trained.model)]
    lines = [
        *("---", "library_name: anigan_jax", f"pipeline_tag: {task}", "tags: [gan, jax, onnx]"),
        *("---", "", f"# {name}", ""),
        f"Makes images of {size}x{size} pixels {TAKES[task]}. Trained with anigan_jax {version}.",
        *("", "![Samples](samples.png)", "", "## Use", "", "```python", "import anigan_jax"),
        *IMPORTS.get(task, ()),
        'run = anigan_jax.load("PATH/OF/THIS/FOLDER")',
        f"{_call(trained, task)}  # uint8 (n, {size}, {size}, {channels})",
        *("```", "", *_onnx(trained, onnx)),
        *("## Trained on", "", *_training(trained, data_license), ""),
        *("## Scores", "", *_scores(trained), ""),
        *("## Weights", ""),
        f"Step {trained.step:,}, {ones}. Images are made with running statistics of batch norm, "
        "not with those of a batch, so that an image does not depend on its neighbors.",
    ]
    return "\n".join(lines) + "\n"


def _task(trained: Opened) -> str:
    if trained.method.translate:
        return "image-to-image"
    return "text-to-image" if trained.model.texts else "unconditional-image-generation"


def _call(trained: Opened, task: str) -> str:
    texts = trained.model.texts
    if not texts:
        return CALLS[task].format(size=trained.config.method.size)
    from anigan_jax.sampling import prompts

    best = texts.combinations[texts.frequencies.argmax()]
    return CALLS[task].format(prompt=prompts.of_row(texts.attributes, best).text)


def _onnx(trained: Opened, onnx: dict[str, str]) -> list[str]:
    method: Any = trained.config.method
    # Mirrored borders need larger maps: 3 pixels at the ends, 1 at the lowest resolution.
    side = max(4, method.generator.multiple_of + 1) if trained.method.translate else 0
    inputs = {
        "image-to-image": "`source` (N, 3, H, W) float32 in [-1, 1], any height and width of at "
        "least {side} pixels",
        "text-to-image": "`z` (N, {z}) float32, standard normal, and the words as `label` (N, A) "
        "int64 classes or as `text` (N, T) float32; the metadata lists the classes",
        "unconditional-image-generation": "`z` (N, {z}) float32, standard normal",
    }[_task(trained)].format(z=trained.method.z_dim, side=side)
    lines = [f"- `{name}`: {found}" for name, found in onnx.items()]
    channels = method.channels
    alpha = ", RGBA with colors multiplied by alpha" if channels == 4 else ""
    return [
        f"Without JAX, by ONNX Runtime: {inputs}; the output `images` is (N, {channels}, H, W) in "
        f"[-1, 1]{alpha}.",
        *("", *lines, ""),
    ]


def _training(trained: Opened, data_license: str) -> list[str]:
    config, digest = trained.config, trained.data_sha256
    data = type(config.data).__name__
    path = getattr(config.data, "path", "")
    where = f"{data}, {Path(path).name}" if path else data
    return [
        f"- Data: {printable(where)}"
        + (f" (SHA-256 of the packed images {digest})" if digest else ""),
        f"- License of the data: {printable(about.license_of(trained, data_license))}",
        f"- Method: {type(config.method).__name__}; {trained.step:,} steps of {config.batch_size} "
        f"images, seed {config.seed}; all settings are in config.json",
    ]


def _scores(trained: Opened) -> list[str]:
    """What `anigan evaluate`, or the training itself, has measured of this step."""
    run, step = trained.path, trained.step
    name = f"step_{step:09d}{trained.model.tag}.json"
    path = out_dir(run, "evaluate") / name
    report = files.read_json(path) if path.exists() else {}
    sets = {one.get("data_sha256") for one in report.get("protocols", {}).values()}
    # Beside other images than the run's own they say nothing of it.
    if report and not (trained.data_sha256 and sets - {None, trained.data_sha256}):
        with files.reading(path):
            return _panel(report)
    folder = run.parent if run.suffix == SUFFIX else run
    judged = collect.lines_of(folder / "evaluation.jsonl")
    line = next((line for line in judged if line["step"] == step), None)
    if line is None or trained.model.tag:
        return ["Not measured. `anigan evaluate RUN` scores a run beside real held-out images."]
    found = collect.scores(folder, judged)
    rows = [
        [label(name).title, line[name], found["floor"].get(name), label(name).better]
        for name in found["series"]
        if line.get(name) is not None
    ]
    return [
        *_table(["score", "generated", "floor", "better"], rows),
        *("", _floor(), *_protocol(found["protocol"])),
    ]


def _panel(report: dict) -> list[str]:
    lines: list[str] = []
    for name, one in report.get("sets", {}).items():
        columns = [c for c in COLUMNS if c == "generated" or one.get("held_out")]
        rows = [
            [label(key).title, *(values.get(c) for c in columns), label(key).better]
            for key, values in one["scores"].items()
        ]
        lines += [f"{files.title(name)}: {one['n']:,} images against {one['train']:,}.", ""]
        titles = ["score", *(c.replace("_", " the ") for c in columns), "better"]
        lines += [*_table(titles, rows), ""]
    lines.append(_floor())
    for protocol in report.get("protocols", {}).values():
        lines += _protocol(protocol)
    return lines


def _floor() -> str:
    return "Floor: what real held-out images get; no generator can be told from perfect beyond it."


def _protocol(protocol: dict) -> list[str]:
    return ["", f"Protocol: `{json.dumps(protocol)}`"] if protocol else []


def _table(titles: list[str], rows: list[list]) -> list[str]:
    def cell(value) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)

    lines = [titles, ["---"] * len(titles), *([cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
