"""What a config file of one's own brings to sweeps and judges: losses, metrics, weights."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import anigan_jax
from anigan_jax import config, config_file
from anigan_jax.errors import UserError
from anigan_jax.metrics import feature_scores
from anigan_jax.storage import metrics_file
from anigan_jax.sweep import compare, grid

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
SMALL = "--method.generator.size 16 --method.generator.z-dim 4 --method.generator.base-channels 4 "
SMALL += "--method.discriminator.size 16 --method.discriminator.base-channels 4 --data.size 16 "
SMALL += "--data.count 44 --batch-size 8 --run.devices 1 --run.steps 3"


def test_a_sweep_of_a_loss_that_nothing_reads_is_refused(tmp_path):
    name, varied = str(EXAMPLES / "critic.py"), ["method.loss=hinge,wasserstein"]
    with pytest.raises(UserError, match=r"same run.*; method.loss changes nothing here"):
        grid.grid(name, [], varied, 1, tmp_path)
    # What does change something may vary beside it, and a loss that is read.
    assert len(grid.grid(name, ["--method.loss", "hinge"], ["flip=true,false"], 1, tmp_path)) == 2
    assert len(grid.grid("quickstart", [], varied, 1, tmp_path)) == 2


def test_ones_own_metric_is_in_the_table_and_the_picture_of_a_sweep(tmp_path, monkeypatch):
    """As docs/howto/own_metric.md says, without `headline=True`."""
    # Another test of this process may have added the same one.
    known = {n: m for n, m in feature_scores.METRICS.items() if n != "mean_distance"}
    monkeypatch.setattr(feature_scores, "METRICS", known)
    names = ["kid-a", "mind-a", "mean_distance-a", "ab/mean_distance-a", "other"]
    assert compare.shown(names) == ["kid-a"]
    (trial,) = grid.grid(str(EXAMPLES / "measured.py"), [], ["flip=true"], 1, tmp_path)
    assert compare.shown(names) == ["kid-a", "mean_distance-a", "ab/mean_distance-a"]
    scores = {"kid-a": 0.5, "mind-a": 0.1, "mean_distance-a": 3.0}
    judged = [{"step": step, **scores} for step in (2, 4)]
    run = compare.Run(trial, np.arange(5) * 2, [], judged, {})
    found = compare.compare([run], grid.Goal(8, 2), {"config": "x", "seeds": [0]})
    heads = compare.tables(found)[0].columns
    assert {"KID (a)", "Distance of means (a)", "best Distance of means (a)"} <= {*heads}
    assert not [head for head in heads if "MIND" in head]
    tall = Image.open(compare.draw([run], found, tmp_path / "own.png")).size[1]
    del feature_scores.METRICS["mean_distance"]
    assert Image.open(compare.draw([run], found, tmp_path / "two.png")).size[1] < tall


def test_a_judge_is_a_flag_and_no_part_of_what_a_run_is():
    """Its three names stand in `--help`; a fingerprint of before is that of now."""
    base = config_file.load("quickstart")
    other = config_file.override(base, ["--run.eval-network", "runs/judge"], "x")
    config.check(other)
    assert other.run.eval_network == "runs/judge"
    assert config.fingerprint(other) == config.fingerprint(base)
    assert config.to_json(base)["run"]["eval_network"] == "vgg16"


def test_the_help_names_the_judges(capsys):
    with pytest.raises(SystemExit):
        config_file.override(config_file.load("quickstart"), ["--help"], "x")
    told = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "Feature network: vgg16, inception, random" in told


def test_a_weight_that_moves_with_the_images_seen(verb, tmp_path):
    """What docs/howto/own_loss.md shows; half a cosine over the images of two steps."""
    path = EXAMPLES / "fading.py"
    weight = ("--method.color-weight.images", 16, "--method.color-weight.end", 0.5)
    words = (*SMALL.split(), *weight)
    code, _, error = verb("train", path, "--workdir", tmp_path / "run", *words)
    assert code == 0, error
    lines = metrics_file.read_metrics(tmp_path / "run" / "metrics.jsonl")
    told = [line["weight/color"] for line in lines if "weight/color" in line]
    np.testing.assert_allclose(told, [1.0, 0.75, 0.5], rtol=1e-6)


def test_a_schedule_of_a_weight_is_at_the_top():
    half = dataclasses.replace(anigan_jax.Cosine(2.0, 0.0, 10), end=1.0)
    np.testing.assert_allclose(half.at(jnp.float32([0, 5, 10, 99])), [2, 1.5, 1, 1], rtol=1e-6)
    assert "Cosine" in anigan_jax.__all__
