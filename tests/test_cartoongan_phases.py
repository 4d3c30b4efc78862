"""CartoonGAN's two phases: their lengths, refusals, and bits across a cut."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from oracles.cartoongan import CONTENT, NO_FACES
from processes import leaves, ledger
from tiny import (
    CARTOON,
    anigan,
    packed,
    process_env,
    with_features,
    write_config,
)

from anigan_jax.core import TrainState
from anigan_jax.errors import UserError
from anigan_jax.methods.cartoongan import Features
from anigan_jax.storage import checkpoint, run_dir
from anigan_jax.training import loop, program
from anigan_jax.training.program import Program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cartoon")


@pytest.fixture(scope="module")
def pack(folder):
    return packed(CARTOON, folder)


@pytest.fixture(scope="module")
def config(folder):
    return with_features(NO_FACES, folder)


def test_phases_end_by_steps_and_by_epochs():
    def ends(total, **lengths):
        settings = dataclasses.replace(CARTOON.method, content_steps=0, content_epochs=0)
        settings = dataclasses.replace(settings, **lengths)
        phases = settings.make(None).phases
        assert [p.name for p in phases] == ["content", "train"][-len(phases) :]
        return program.phase_ends(phases, total, 5)

    assert ends(40, content_steps=4) == [4, 40]
    assert ends(40, content_epochs=3) == [15, 40]
    # Steps override epochs.
    assert ends(40, content_steps=4, content_epochs=3) == [4, 40]
    assert ends(40) == [40]
    # A run that ends within its first phase.
    assert ends(10, content_epochs=3) == [10, 10]


@pytest.mark.parametrize(
    ("content", "length"),
    [
        ({"content_steps": 4}, 4),
        ({"content_steps": 6}, 6),
        ({"content_steps": 5}, 5),
        ({"content_steps": 0, "content_epochs": 1}, 5),
        ({"content_steps": 12}, 6),
    ],
)
def test_a_dispatch_does_not_reach_over_the_phases(config, pack, content, length):
    """44 images in batches of 8: an epoch has 5 steps."""
    method = dataclasses.replace(config.method, **content)
    run = dataclasses.replace(
        config.run, steps=24, steps_per_dispatch=7, sample_every=12, checkpoint_every=24, devices=1
    )
    config = dataclasses.replace(config, method=method, run=run)
    made = Program(config, pack, method.constants(pack))
    assert made.length == length
    assert made.total == 24
    ends = [chunk.end for chunk in made.chunks(0)]
    assert {made.ends[0], 12, 24} <= set(ends)


def test_absent_features_are_told_with_the_command_before_a_run_is_made(pack, tmp_path):
    features = dataclasses.replace(CARTOON.method.features, path=str(tmp_path / "none"))
    method = dataclasses.replace(CARTOON.method, features=features)
    with pytest.raises(UserError, match=r"no file .*none.*anigan weights"):
        method.constants(pack)
    run = tmp_path / "run"
    with pytest.raises(UserError, match="anigan weights"):
        loop.train(dataclasses.replace(CARTOON, method=method), run, pack)
    assert not (run / "run.json").exists()
    assert {p.name for p in run.iterdir()} <= {"lock"}


@pytest.mark.parametrize(
    ("network", "layer"),
    [("vgg16", "conv9_9"), ("vgg16", "conv4_4"), ("vgg19", "pool1"), ("vgg19", "")],
)
def test_unknown_layers_are_refused(network, layer):
    method = dataclasses.replace(CARTOON.method, features=Features(network, layer=layer))
    with pytest.raises(UserError, match=f"{network.upper()} has no map"):
        method.check()
    dataclasses.replace(method, features=Features("vgg19", layer="relu4_4")).check()


@pytest.mark.parametrize(
    "length", [{"content_steps": 4}, {"content_steps": 0, "content_epochs": 2}]
)
def test_a_first_phase_without_content_is_refused(length):
    method = dataclasses.replace(CARTOON.method, content=0.0, **length)
    with pytest.raises(UserError, match=r"method\.content is 0.*content_epochs 0"):
        method.make(None)
    dataclasses.replace(method, content_steps=0, content_epochs=0).check()


def test_negative_lengths_are_refused():
    for change in ({"content_steps": -1}, {"content_epochs": -1}):
        with pytest.raises(UserError, match="0 or more"):
            dataclasses.replace(CARTOON.method, **change).check()


@pytest.mark.slow
def test_a_run_that_is_cut_twice_equals_a_whole_one(folder, tmp_path):
    """Killed as the phases change, ended after the drop of the rate, lengthened, replayed."""
    assert (CONTENT, CARTOON.optimizers["g"].boundaries) == (4, (5,))
    config = write_config(tmp_path, "CARTOON")
    with_features(NO_FACES, folder)
    options = [
        *("--method.features.path", str(folder / "thin_vgg16.safetensors")),
        *("--method.landmark", "0", "--run.checkpoint-every", "2", "--run.sample-every", "4"),
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def command(run, steps):
        # Of one step each: whatever is cut is compiled once.
        lengths = ["--run.steps", str(steps), "--run.steps-per-dispatch", "1"]
        return ["train", str(config), "--workdir", str(run), *lengths, *options]

    done = anigan(*command(whole, 8))
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "anigan_jax", *command(cut, 8)],
        env=process_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.time() + 200
    while max(checkpoint.steps(cut / "checkpoints"), default=0) < CONTENT:
        assert time.time() < deadline, "no checkpoint appeared"
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=100)
    assert CONTENT <= max(checkpoint.steps(cut / "checkpoints")) < 8
    # Over the drop of the rate at step 5, whatever the kill had left, then to the end.
    for steps in (6, 8):
        done = anigan(*command(cut, steps))
        assert done.returncode == 0, done.stderr
    assert ledger(cut) == ledger(whole)
    assert len(ledger(whole)) == 9
    for step in (6, 8):
        assert leaves(cut, step) == leaves(whole, step)
    done = anigan("replay", cut)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical through step 8" in done.stdout


@pytest.mark.parametrize("kind", ["device", "host"])
def test_a_replay_reaches_beyond_the_first_length_of_a_run(tmp_path, kind):
    """A run may be resumed with more steps; its record still has the first length."""
    config = with_features(CARTOON, tmp_path)
    run = dataclasses.replace(config.run, steps=3, input=kind, steps_per_dispatch=1)
    config = dataclasses.replace(config, run=run)
    pack = packed(config, tmp_path / "cache")
    made = Program(config, pack, config.method.constants(pack))
    names = [made.method.phases[chunk.phase].name for chunk in made.chunks(0, 7)]
    assert names == ["content"] * 4 + ["train"] * 3


@pytest.mark.parametrize(("steps", "told"), [(3, True), (4, True), (5, False)])
def test_a_run_that_ends_before_its_last_phase_says_so(pack, tmp_path, steps, told):
    untrained = TrainState(
        0, 0, params={}, stats={}, opt_state={}, ema={}, ema_stats={}, extra_state={}
    )
    method = dataclasses.replace(CARTOON.method, content_steps=4)
    run = dataclasses.replace(CARTOON.run, steps=steps)
    config = dataclasses.replace(CARTOON, method=method, run=run)
    (tmp_path / run_dir.RUN).write_text('{"facts": {}}')
    said = [*loop._header(config, untrained, pack, tmp_path, 0, steps)]
    assert any("the phase 'train' gets no step" in line for line in said) == told
