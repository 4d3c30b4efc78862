"""Faults that meet a training: NaN, memory, other devices, another compiler."""

import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from faults.undisturbed import OFTEN, STEPS, argv, train
from processes import (
    Training,
    newest,
    prints,
    steps_of,
)
from tiny import FULL, process_env, start

from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.storage import checkpoint, metrics_file
from anigan_jax.training import artifacts

pytestmark = pytest.mark.long


@pytest.mark.fault(12)
def test_a_rate_that_is_far_too_high(whole, tmp_path):
    config, _ = whole
    run = tmp_path / "run"
    training = Training(
        tmp_path / "log",
        *train(
            config, run, "--optimizers.g.learning-rate", 1e18, "--optimizers.d.learning-rate", 1e18
        ),
    )
    assert training.ended() == 3, training.said()
    assert "diverged" in training.said()
    told = json.loads((run / artifacts.DIVERGED).read_text())
    step = metrics_file.read_metrics(run / "metrics.jsonl")[-1]["step"]
    # Within one super-step, of two steps here.
    assert 0 < told["step"] <= step <= told["step"] + 3
    assert told["leaves"]
    assert told["first"] in training.said()
    assert told["first"] in told["leaves"]
    # Only a run that has a checkpoint is a source of weights.
    assert ("--init-from" in training.said()) == bool(steps_of(run))
    for kept in steps_of(run):
        state = checkpoint.restore(run / "checkpoints", start(FULL)[1], at=kept).state
        assert not artifacts.not_finite(state)


@pytest.mark.fault(12)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bad_weight_is_named(whole, tmp_path, value):
    """In the checkpoint itself, with digests that fit."""
    config, undisturbed = whole
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    like = jax.tree.map(np.asarray, start(FULL)[1])
    found = checkpoint.restore(run / "checkpoints", like)
    kernel = np.array(found.state.params["g"]["rgb"]["weight"]["kernel"])
    kernel[0, 0, 0, 0] = value
    found.state.params["g"]["rgb"]["weight"]["kernel"] = kernel
    checkpoint.save(run / "checkpoints", found.step, found.state, found.manifest["meta"])
    command = ("train", config, "--workdir", run, "--run.steps", STEPS + 40, *OFTEN)
    training = Training(tmp_path / "log", *command)
    assert training.ended() == 3, training.said()
    told = json.loads((run / artifacts.DIVERGED).read_text())
    assert told["step"] == STEPS + 1
    assert told["first"] in told["leaves"]
    assert newest(run) == STEPS


@pytest.mark.fault(24)
@pytest.mark.slow
def test_other_devices_and_back(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"

    def devices(count, steps):
        options = ("--run.platform", "cpu", "--run.devices", count)
        command = ("train", config, "--workdir", run, "--run.steps", steps, *OFTEN, *options)
        training = Training(tmp_path / "log", *command)
        assert training.ended() == 0, training.said()
        return training.said()

    assert "warning" not in devices(1, 24)
    assert "devices: 1 -> 4" in devices(4, 48)
    assert "devices: 4 -> 1" in devices(1, 72)
    mine, whole_prints = prints(run), prints(undisturbed)
    assert {s: mine[s] for s in range(25)} == {s: whole_prints[s] for s in range(25)}
    lines, others = (metrics_file.read_metrics(r / "metrics.jsonl") for r in (run, undisturbed))
    # The same weights, images and noise: the losses of the next step agree to rounding.
    for name in ("loss/d", "loss/g", "score/real"):
        assert lines[25][name] == pytest.approx(others[25][name], rel=1e-5)
    noted = json.loads((run / "run.json").read_text())["resumed"]
    assert [entry["step"] for entry in noted] == [24, 48]


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--run.platform", "gpu"), "platform 'cuda'"),
        (("--run.platform", "tpu"), "platform 'tpu'"),
        # One of two is missing.
        (("--run.devices", 2), ""),
    ],
)
def test_devices_that_are_not_there(whole, tmp_path, options, named):
    config, _ = whole
    env = {"JAX_PLATFORMS": ""} if "--run.platform" in options else {}
    training = Training(tmp_path / "log", *train(config, tmp_path / "run", *options), env=env)
    assert training.ended() == 2, training.said()
    assert named in training.said()
    assert "Traceback" not in training.said()
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.fault(27)
def test_a_compiler_that_computes_wrong_numbers_stops_everything(monkeypatch):
    """As jax issue 39103 was seen: one element of a compiled result off by 0.8 %.

    Which processors it strikes is not known; so the compiler's part is played.
    """
    environment.self_test()
    usual = jax.jit

    def wrong(function):
        return lambda *args: usual(function)(*args).at[1].multiply(0.992)

    monkeypatch.setattr(jax, "jit", wrong)
    with pytest.raises(UserError, match="wrong numbers"):
        environment.self_test()


@pytest.mark.fault(27)
def test_other_versions_than_at_the_start_are_told_and_noted(whole, tmp_path):
    config, undisturbed = whole
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    recorded = json.loads((run / "run.json").read_text())
    recorded["facts"]["jaxlib"] = "0.9.9"
    (run / "run.json").write_text(json.dumps(recorded))
    command = ("train", config, "--workdir", run, "--run.steps", STEPS + 8, *OFTEN)
    training = Training(tmp_path / "log", *command)
    assert training.ended() == 0, training.said()
    assert "jaxlib: 0.9.9 -> " in training.said()
    noted = json.loads((run / "run.json").read_text())["resumed"]
    assert noted[0]["step"] == STEPS
    assert "jaxlib" in noted[0]["changed"][0]


@pytest.mark.fault(28)
def test_memory_that_runs_out(whole, tmp_path):
    """Of a process that may take 5 GB of address space."""
    config, _ = whole
    run = tmp_path / "run"
    command = ("train", config, "--workdir", run, "--run.steps", 4, "--run.keep-checkpoints", 1)
    wide = argv((*command, "--method.generator.base-channels", 2000))
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 5000000; exec "$@"', "-", *wide],
        env=process_env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 4, done.stderr
    assert "--batch-size" in done.stderr and "--run.devices" in done.stderr
    assert "Traceback" not in done.stderr
