"""Event files of `anigan report --tensorboard`."""

import sys

import numpy as np
import pytest
from PIL import Image
from run_dirs import judged

from anigan_jax.errors import UserError
from anigan_jax.report import collect
from anigan_jax.storage import metrics_file


@pytest.fixture
def run(trained, tmp_path):
    """A copy to write into."""
    return trained("FULL").copy(tmp_path / "run").run


def test_event_files(run, tmp_path, verb):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    judged(run)
    folder = tmp_path / "events"
    code, said, _ = verb("report", run, "--no-draw", "--tensorboard", folder)
    assert code == 0
    assert str(folder / "run") in said
    events = reader.EventAccumulator(str(folder / "run"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    for key in ("loss/g", "images_per_sec", "accuracy/d"):
        found = events.Scalars(key)
        assert [event.step for event in found] == list(range(1, 9))
        np.testing.assert_allclose([e.value for e in found], [m[key] for m in lines[1:]], rtol=1e-6)
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("evaluation/coverage-vgg16")] == [
        (4, 0.5)
    ]
    assert {tag.split("/")[0] for tag in events.Tags()["images"]} == {"samples", "ema"}
    image = events.Images("samples")[-1]
    (tmp_path / "x.png").write_bytes(image.encoded_image_string)
    assert image.step == 8
    with (
        Image.open(tmp_path / "x.png") as got,
        Image.open(run / "previews/samples/step_000000008.png") as want,
    ):
        np.testing.assert_array_equal(np.asarray(got.convert("RGB")), np.asarray(want))
    # Points are never there twice.
    before = sorted(p.name for p in (folder / "run").iterdir())
    code, _, error = verb("report", run, "--no-draw", "--tensorboard", folder)
    assert code == 2
    assert "holds event files already" in error
    assert sorted(p.name for p in (folder / "run").iterdir()) == before


def test_tensorboard_is_an_extra(run, verb, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    code, _, error = verb("report", run, "--no-draw", "--tensorboard", tmp_path / "x")
    assert code == 2
    assert "anigan_jax[tensorboard]" in error
    with pytest.raises(UserError, match="given twice"):
        collect.labels([run, run])
