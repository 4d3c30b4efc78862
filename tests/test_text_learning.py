"""Slow proof: a tiny text GAN obeys, judged by a classifier that never saw its images."""

import json

import learning
import pytest
from tiny import anigan, write_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimized")]


def test_prompts_are_obeyed_and_the_control_falls_to_chance(tmp_path):
    """32-px painted faces: hair and eyes right far above chance, shuffled prompts at chance."""
    for name in ("OBEDIENT", "OBEDIENT_JUDGE"):
        folder = tmp_path / name
        folder.mkdir()
        done = anigan("train", write_config(folder, name, "learning"), "--workdir", folder / "run")
        assert done.returncode == 0, done.stderr
    runs = [tmp_path / name / "run" for name in ("OBEDIENT", "OBEDIENT_JUDGE")]
    done = anigan("accuracy", runs[0], "--classifier", runs[1], "--n", 4, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    top = {part: share["value"] for part, share in report["ceiling"]["prompts"].items()}
    got = {part: share["value"] for part, share in report["seen"]["prompts"].items()}
    control = {part: share["value"] for part, share in report["seen"]["shuffled"].items()}
    assert top["hair"] > 0.97
    assert top["eyes"] > 0.8
    assert got["hair"] > 0.9
    assert got["eyes"] > 0.35
    assert abs(control["hair"] - 1 / 12) < 0.05
    assert abs(control["eyes"] - 1 / 11) < 0.05
    assert got["hair"] > 0.9 * top["hair"]
    # Zero-shot: the pairs that were left out are obeyed too, far beyond chance.
    unseen = report["unseen"]["prompts"]
    assert unseen["hair"]["n"] == 4 * len(learning.OBEDIENT.data.without)
    assert unseen["hair"]["low"] > 0.5
    assert unseen["eyes"]["low"] > 0.3


def test_the_text_encoder_finds_the_pair_of_a_held_out_image(tmp_path):
    """The joint embedding on 32-px painted faces; chance is 1 / 132."""
    config = write_config(tmp_path, "READER", "learning")
    done = anigan("train", config, "--workdir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run/evaluation.jsonl").read_text().splitlines()
    got = json.loads(lines[-1])
    assert got["retrieval/hair"] > 0.8
    assert got["retrieval/image_to_text"] > 0.3
    # Wordings that it never read are understood nearly as well.
    assert abs(got["unseen_wording/hair"] - got["retrieval/hair"]) < 0.15
