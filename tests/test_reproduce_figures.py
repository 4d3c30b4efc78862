"""Every table and figure of the five reports can be made of runs of the planned shapes.

Nothing is trained: weights are drawn, metrics are written by hand.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import drawn_state

from anigan_jax import api
from anigan_jax import config as configs
from anigan_jax.data.synthetic import painted, photo
from anigan_jax.report.curves import curves
from anigan_jax.report.table import Table
from anigan_jax.reproduce import numbers, plan, runner
from anigan_jax.reproduce.plan import Budget, Place, Planned
from anigan_jax.reproduce.reports import REPORTS
from anigan_jax.storage import checkpoint, run_dir

# A step for each epoch or iteration of the report.
TINY = Budget("small", lambda training: (4 * training.parts, 4), 1 / 16, 8)
KEYS = ("loss/g", "loss/d", "loss/content", "score/real", "score/fake", "accuracy/d")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[str, str]:
    """Folders of labeled faces and of photos."""
    faces, photos = (tmp_path_factory.mktemp(name) for name in ("faces", "photos"))
    labels = []
    for i in range(48):
        name, face = f"{i:02}", painted.face(0, i)
        Image.fromarray(painted.paint(0, i, 64)).save(faces / f"{name}.png")
        labels.append(f"{name},{face.hair} hair {face.eyes} eyes")
        if i < 20:
            Image.fromarray(photo.paint(0, i, 64)).save(photos / f"{name}.png")
    (faces / "tags.csv").write_text("\n".join(labels) + "\n")
    return str(faces), str(photos)


@pytest.fixture(scope="module")
def plots(tmp_path_factory) -> Path:
    """The curves that a training leaves, of one that stands for all: a second for each picture."""
    folder = tmp_path_factory.mktemp("plots") / "curves"
    curves(metrics_of(4), folder)
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """As little as the figures allow."""
    monkeypatch.setattr(numbers, "PROBED", 20)
    monkeypatch.setattr(numbers, "A_PAIR", 1)


def metrics_of(steps: int) -> list[dict]:
    draw = np.random.default_rng(0)
    rest = {"images_per_sec": 9.0, "repeats/d": 5.0, "repeats/g": 5.0}
    return [
        {"step": i, "images_seen": 4 * i, **rest, **{key: float(draw.random()) for key in KEYS}}
        for i in range(1, steps + 1)
    ]


def finish(planned: Planned, plots: Path) -> None:
    """The run directory that a training would leave."""
    folder, config = planned.folder, planned.config
    pack = api.data_of(config)
    folder.mkdir(parents=True)
    texts = bool(config.method.make().texts)
    with pytest.MonkeyPatch.context() as patch:
        if "vgg" in planned.training.needs:
            # The losses' networks are no part of what makes images.
            patch.setattr(type(config.method), "constants", lambda self, pack: {})
        constants = run_dir.open_run(config, folder, pack, planned.command)
    state = drawn_state(config, constants)
    meta = {"config_sha256": configs.fingerprint(config)}
    kept = {planned.at(part) for part in planned.training.kept} | {planned.steps}
    for step in kept:
        checkpoint.save(folder / "checkpoints", step, state.replace(step=np.int32(step)), meta)
    run_dir.export_weights(folder, config, state, constants if texts else {})
    _write(folder / "metrics.jsonl", metrics_of(planned.steps))
    shutil.copytree(plots, folder / "curves")
    scores = {"kid-random": 1.0, "coverage-random": 0.1}
    way = "ab/" if "photos" in planned.training.needs else ""
    own = {"retrieval/top5": 0.5}
    judged = [
        {"step": planned.at(part), **own, **{f"{way}{k}": v + part for k, v in scores.items()}}
        for part in planned.training.judged or (planned.training.parts,)
    ]
    _write(folder / "evaluation.jsonl", judged)
    picture = Image.new("RGB", (66, 66))
    picture.save(folder / "real.png")
    previews = run_dir.previews_dir(folder) / "samples"
    previews.mkdir(parents=True)
    for part in {*planned.training.shown, planned.training.parts}:
        picture.save(previews / f"step_{planned.at(part):09d}.png")


def _write(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.long
@pytest.mark.parametrize("name", REPORTS)
def test_every_table_and_figure(name, sources, plots, tmp_path):
    faces, photos = sources
    given = {"photos": photos, "features": "vgg16"} if name == "tsinghua" else {}
    work = plan.plan(REPORTS[name], TINY, Place(tmp_path / "work", faces, **given))
    for planned in work.runs.values():
        finish(planned, plots)
    for experiment in work.report.experiments:
        found = runner._made(work, experiment, {})
        assert found.notes == []
        assert found.shown
        for one in found.shown:
            assert isinstance(one, Table) or (work.place.workdir / one.path).is_file()
