"""The promise: the same bits from two processes, across a kill, and on replay."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import (
    FULL,
    NAMES,
    anigan,
    digests,
    packed,
    process_env,
    run_steps,
    start,
    write_config,
)

from anigan_jax.storage import checkpoint, metrics_file


@pytest.mark.slow
def test_two_processes_give_the_same_bits_for_every_config(tmp_path):
    """Separate compilation caches: the second process compiles for itself."""
    script = Path(__file__).with_name("steps_in_a_process.py")
    runs = []
    for i in range(2):
        env = {**process_env(), "XDG_CACHE_HOME": str(tmp_path / str(i))}
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        runs.append(
            subprocess.Popen(
                [sys.executable, script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    texts = [run.communicate(timeout=1500) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], texts[0][1][-2000:]
    first, second = (json.loads(out) for out, _ in texts)
    assert first.keys() == set(NAMES)
    assert first == second
    # Another config is another run. At one size these differ in nothing: the reference and
    # UCSD's baseline (batch), sjtu_text_gan and its narrower variant, the two classifiers.
    assert len({json.dumps(value) for value in first.values()}) >= len(NAMES) - 3


ENTRIES = {
    "params of g": lambda now, new: {"params": {**now.params, "g": new.params["g"]}},
    "params of d": lambda now, new: {"params": {**now.params, "d": new.params["d"]}},
    "stats of g": lambda now, new: {"stats": {**now.stats, "g": new.stats["g"]}},
    "batch norm of d": lambda now, new: {"stats": _stats(now, new, "batch_stats")},
    "spectral norm of d": lambda now, new: {"stats": _stats(now, new, "spectral")},
    "optimizer of g": lambda now, new: {"opt_state": {**now.opt_state, "g": new.opt_state["g"]}},
    "optimizer of d": lambda now, new: {"opt_state": {**now.opt_state, "d": new.opt_state["d"]}},
    "average": lambda now, new: {"ema": new.ema},
    "extra state": lambda now, new: {
        "extra_state": {"correct": np.int32(16), "judged": np.int32(16)}
    },
    "step": lambda now, new: {"step": new.step},
    "key": lambda now, new: {"key": np.zeros_like(new.key) + 1},
    "nothing": lambda now, new: {},
}


def _stats(now, new, part):
    return {**now.stats, "d": {**now.stats["d"], part: new.stats["d"][part]}}


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Images, first state, state after 4 steps, digests after 8."""
    images = packed(FULL, tmp_path_factory.mktemp("cache")).images
    first = jax.tree.map(np.asarray, start(FULL)[1])
    middle, _ = run_steps(FULL, images, first, 4, length=2)
    end, _ = run_steps(FULL, images, middle, 4, length=2)
    return images, first, middle, digests(end)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_of_the_state_is_needed_to_resume(halves, tmp_path, entry):
    """Negative controls: with one entry fresh instead of saved the bits differ."""
    images, first, middle, want = halves
    saved = middle.replace(**ENTRIES[entry](middle, first))
    checkpoint.save(tmp_path, 4, saved, {})
    found = checkpoint.restore(tmp_path, first)
    end, _ = run_steps(FULL, images, found.state, 4, length=2)
    assert (digests(end) == want) == (entry == "nothing")


def ledger(run: Path) -> list[tuple]:
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    volatile = ("images_per_sec",)
    return [tuple(sorted((k, str(v)) for k, v in m.items() if k not in volatile)) for m in lines]


def leaves(run: Path, step: int) -> dict:
    path = run / "checkpoints" / f"step_{step:09d}" / "manifest.json"
    return json.loads(path.read_text())["leaves"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A config file and a whole run of 240 steps (44 images, batch 8: 48 epochs)."""
    folder = tmp_path_factory.mktemp("runs")
    config = write_config(folder)
    done = anigan("train", config, "--workdir", folder / "whole", "--run.steps", 240)
    assert done.returncode == 0, done.stderr
    return folder, config


def test_kill_and_resume_equal_an_uninterrupted_run(runs):
    """SIGKILL in the middle, then a SIGTERM, then to the end: every line and every leaf."""
    folder, config = runs
    command = [
        *(sys.executable, "-m", "anigan_jax", "train", str(config)),
        *("--workdir", str(folder / "cut"), "--run.steps", "240"),
    ]
    for number, after, code in ((signal.SIGKILL, 40, -9), (signal.SIGTERM, 90, 143)):
        process = subprocess.Popen(
            command, env=process_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        deadline = time.time() + 200
        while max(checkpoint.steps(folder / "cut" / "checkpoints"), default=0) < after:
            assert time.time() < deadline, "no checkpoint appeared"
            assert process.poll() is None, process.stdout.read().decode()
            time.sleep(0.02)
        os.kill(process.pid, number)
        process.communicate(timeout=100)
        assert process.returncode == code
        assert max(checkpoint.steps(folder / "cut" / "checkpoints")) < 240
    assert anigan(*command[3:]).returncode == 0
    assert ledger(folder / "cut") == ledger(folder / "whole")
    assert leaves(folder / "cut", 240) == leaves(folder / "whole", 240)
    assert len(ledger(folder / "whole")) == 241


def test_input_mapper_and_dispatch_do_not_change_the_bits(runs):
    folder, config = runs
    options = ["--run.input", "host", "--run.mapper", "shard_map"]
    options += ["--run.steps-per-dispatch", "4", "--run.checkpoint-every", "8"]
    done = anigan("train", config, "--workdir", folder / "other", "--run.steps", 24, *options)
    assert done.returncode == 0, done.stderr
    assert ledger(folder / "other") == ledger(folder / "whole")[:25]


def test_replay_agrees_with_an_untouched_run(runs):
    done = anigan("replay", runs[0] / "whole", "--until", 30)
    assert done.returncode == 0
    assert "identical through step 30" in done.stdout


def copy(runs, tmp_path) -> Path:
    shutil.copytree(runs[0] / "whole", tmp_path / "run")
    return tmp_path / "run"


def test_replay_names_the_first_step_of_another_seed(runs, tmp_path):
    run = copy(runs, tmp_path)
    path = run / "run.json"
    recorded = json.loads(path.read_text())
    recorded["config"]["seed"] = 1
    path.write_text(json.dumps(recorded))
    done = anigan("replay", run, "--until", 10)
    assert done.returncode == 1
    assert "step 0" in done.stdout


def test_replay_names_the_first_step_of_other_data(runs, tmp_path):
    run = copy(runs, tmp_path)
    path = run / "run.json"
    recorded = json.loads(path.read_text())
    recorded["config"]["data"]["seed"] = 1
    path.write_text(json.dumps(recorded))
    done = anigan("replay", run, "--until", 10)
    assert done.returncode == 1
    assert "step 1" in done.stdout


def test_replay_names_a_changed_weight_of_a_checkpoint(runs, tmp_path):
    """One weight of the last checkpoint changed, with digests that fit it."""
    run = copy(runs, tmp_path)
    like = jax.tree.map(np.asarray, start(FULL)[1])
    found = checkpoint.restore(run / "checkpoints", like)
    kernel = np.array(found.state.params["g"]["rgb"]["weight"]["kernel"])
    kernel[0, 0, 0, 0] += 1e-7
    found.state.params["g"]["rgb"]["weight"]["kernel"] = kernel
    checkpoint.save(run / "checkpoints", found.step, found.state, {})
    done = anigan("replay", run)
    assert done.returncode == 1
    assert f"step {found.step}" in done.stdout
    assert "rgb" in done.stdout


def test_a_damaged_newest_checkpoint_is_told_and_the_run_still_ends_the_same(runs, tmp_path):
    run = copy(runs, tmp_path)
    newest = run / "checkpoints" / "step_000000240"
    target = max(newest.joinpath("state").rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    done = anigan("train", runs[1], "--workdir", run, "--run.steps", 240)
    assert done.returncode == 0, done.stderr
    assert "damaged" in done.stdout + done.stderr
    assert leaves(run, 240) == leaves(runs[0] / "whole", 240)
    assert ledger(run) == ledger(runs[0] / "whole")


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(runs, tmp_path):
    run = copy(runs, tmp_path)
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")
    before = (run / "metrics.jsonl").read_bytes()
    for _ in range(2):
        done = anigan("train", runs[1], "--workdir", run, "--run.steps", 240)
        assert done.returncode == 2
        assert "damaged" in done.stderr
    assert (run / "metrics.jsonl").read_bytes() == before


def test_the_state_tree_is_the_whole_of_training():
    fields = {field.name for field in dataclasses.fields(start(FULL)[1])}
    covered = {"params", "stats", "opt_state", "ema", "extra_state", "step", "key"}
    assert fields == covered


def test_a_run_of_another_version_is_neither_resumed_nor_replayed(runs, tmp_path):
    run = copy(runs, tmp_path)
    recorded = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**recorded, "schema": 1}))
    before = (run / "metrics.jsonl").read_bytes()
    for verb in (["train", runs[1], "--workdir", run, "--run.steps", 250], ["replay", run]):
        done = anigan(*verb)
        assert done.returncode == 2
        assert "another version" in done.stderr
    assert (run / "metrics.jsonl").read_bytes() == before
    # It can still be looked at.
    assert anigan("sample", run, "--n", 1).returncode == 0
