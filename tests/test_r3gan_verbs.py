"""R3GAN from the command line: what it warns of and refuses, and its labeled pictures."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image
from processes import same_end
from tiny import FULL, R3, anigan, packed, untrained, write_config

import anigan_jax
from anigan_jax.config import identity, resolve
from anigan_jax.state import abstract_state
from anigan_jax.storage import run_dir
from anigan_jax.training import health, loop


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("runs") / "r3", "R3")


@pytest.mark.long
def test_faces_by_words_and_the_table(run, verb):
    code, out, err = verb("sample", run, "--prompt", "blue hair red eyes", "--n", 2)
    assert code == 0, err
    assert Image.open(out.strip().splitlines()[-1]).size[0] >= 32
    code, out, err = verb("table", run)
    assert code == 0, err
    code, out, err = verb("sample", run, "--n", 3)
    assert code == 0, err


def test_single_pixels_have_no_kernels_to_draw(run, verb):
    code, _, err = verb("kernels", run)
    assert code == 2
    assert "it has no kernels" in err


@pytest.mark.long
def test_d_has_features(run):
    """For `probe`: the sums of its residual blocks, pooled."""
    model = anigan_jax.load(run)
    images, state = np.zeros((3, 16, 16, 3), np.float32), model.state
    found = model.method.features(state.params["d"], state.stats["d"], images)
    # Of four blocks the sums of 4 channels.
    assert found.shape == (3, 4 * 4 * 4 * 4)


@pytest.mark.parametrize("kind", ["as_printed", "as_argued"])
def test_a_schedule_by_accuracy_refuses_pairs_with_exit_code_2(tmp_path, verb, kind):
    words = ("--method.loss", "relativistic", "--method.schedule.kind", kind)
    run = tmp_path / "run"
    code, _, err = verb("train", write_config(tmp_path), "--workdir", run, *words)
    assert code == 2
    assert "only ranks them" in err
    assert not run.exists()


def test_a_run_of_pairs_without_r2_begins_with_a_warning(tmp_path):
    pack = packed(R3, tmp_path)
    (tmp_path / run_dir.RUN).write_text("{}")
    for r2, want in ((0.0, 1), (1.0, 0)):
        config = dataclasses.replace(R3, method=dataclasses.replace(R3.method, r2=r2))
        shapes = abstract_state(config, config.method.make(), config.method.constants(pack))
        said = loop._header(resolve(config, 44), shapes, pack, tmp_path, 0, 8)
        assert len([x for x in said if "compares real and generated" in x]) == want


def test_that_d_has_won_is_said_of_pairs():
    line = {"accuracy/d": 1.0, "gradient/g": 0.5}
    for more, want in (({"score/pair": 0.9}, "of the pairs"), ({}, "told 99% of real")):
        (said,) = health.of_training([{**line, **more}] * health.WINDOW)
        assert want in said


@pytest.mark.long
def test_a_run_is_replayed_and_resumed(trained, tmp_path):
    """Its rates follow the images seen, which the checkpoints of the run have in steps."""
    made = trained("R3")
    done = anigan("replay", made.run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"identical through step {FULL.run.steps}" in done.stdout
    cut = made.copy(tmp_path / "cut")
    shutil.rmtree(cut.run / "checkpoints" / f"step_{FULL.run.steps:09d}")
    done = anigan("train", cut.config, "--workdir", cut.run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "at step 4" in done.stdout
    same_end(cut.run, made.run)
    # Latents that were found by the one are read with the other.
    alone, whole = (anigan_jax.load(cut.run, checkpoint=c).config for c in (None, "latest"))
    assert identity(alone) == identity(whole)
