"""The promise: the same bits from two processes, across a kill, and on replay."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from faults.undisturbed import STEPS, resumed, train
from processes import Training, ledger, newest, same_end
from tiny import (
    FULL,
    anigan,
    digests,
    packed,
    run_steps,
    start,
)

from anigan_jax.storage import checkpoint

ENTRIES = {
    "params of g": lambda now, new: {"params": {**now.params, "g": new.params["g"]}},
    "params of d": lambda now, new: {"params": {**now.params, "d": new.params["d"]}},
    "stats of g": lambda now, new: {"stats": {**now.stats, "g": new.stats["g"]}},
    "batch norm of d": lambda now, new: {"stats": _stats(now, new, "batch_stats")},
    "spectral norm of d": lambda now, new: {"stats": _stats(now, new, "spectral")},
    "optimizer of g": lambda now, new: {"opt_state": {**now.opt_state, "g": new.opt_state["g"]}},
    "optimizer of d": lambda now, new: {"opt_state": {**now.opt_state, "d": new.opt_state["d"]}},
    "average": lambda now, new: {"ema": new.ema},
    "statistics of the average": lambda now, new: {"ema_stats": new.ema_stats},
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


@pytest.mark.long
def test_kill_and_resume_equal_an_uninterrupted_run(whole, tmp_path):
    """SIGKILL in the middle, then a SIGTERM, then to the end: every line and every leaf."""
    config, undisturbed = whole
    cut = tmp_path / "cut"
    for number, after, code in ((signal.SIGKILL, 24, -9), (signal.SIGTERM, 56, 143)):
        training = Training(tmp_path / "log", *train(config, cut))
        training.until(lambda after=after: newest(cut) >= after)
        training.send_signal(number)
        assert training.ended() == code, training.said()
        assert newest(cut) < STEPS
    resumed(config, cut)
    same_end(cut, undisturbed)
    assert newest(cut) == STEPS
    assert len(ledger(cut)) == STEPS + 1


@pytest.mark.long
def test_input_mapper_and_dispatch_do_not_change_the_bits(whole, tmp_path):
    config, undisturbed = whole
    options = ["--run.input", "host", "--run.mapper", "shard_map"]
    options += ["--run.steps-per-dispatch", "4", "--run.checkpoint-every", "8"]
    done = anigan("train", config, "--workdir", tmp_path / "other", "--run.steps", 24, *options)
    assert done.returncode == 0, done.stderr
    assert ledger(tmp_path / "other") == ledger(undisturbed)[:25]


@pytest.mark.long
def test_replay_agrees_with_an_untouched_run(whole):
    done = anigan("replay", whole[1], "--until", 30)
    assert done.returncode == 0
    assert "identical through step 30" in done.stdout


@pytest.fixture
def run(whole, tmp_path):
    """A copy to write into."""
    return Path(shutil.copytree(whole[1], tmp_path / "run"))


@pytest.mark.long
def test_replay_names_the_first_step_of_another_seed(run, verb):
    path = run / "run.json"
    recorded = json.loads(path.read_text())
    recorded["config"]["seed"] = 1
    path.write_text(json.dumps(recorded))
    code, out, _ = verb("replay", run, "--until", 10)
    assert code == 1
    assert "step 0" in out


@pytest.mark.long
def test_replay_names_the_first_step_of_other_data(run):
    path = run / "run.json"
    recorded = json.loads(path.read_text())
    recorded["config"]["data"]["seed"] = 1
    path.write_text(json.dumps(recorded))
    done = anigan("replay", run, "--until", 10)
    assert done.returncode == 1
    assert "step 1" in done.stdout


@pytest.mark.long
def test_replay_names_a_changed_weight_of_a_checkpoint(run):
    """One weight of the last checkpoint changed, with digests that fit it."""
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


@pytest.mark.long
def test_a_damaged_newest_checkpoint_is_told_and_the_run_still_ends_the_same(whole, run):
    config, undisturbed = whole
    state = run / "checkpoints" / f"step_{STEPS:09d}" / "state"
    target = max(state.rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    assert "damaged" in resumed(config, run).said()
    same_end(run, undisturbed)


@pytest.mark.long
def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(whole, run, verb):
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{}")
    before = (run / "metrics.jsonl").read_bytes()
    for _ in range(2):
        code, _, err = verb(*train(whole[0], run))
        assert code == 2
        assert "damaged" in err
    assert (run / "metrics.jsonl").read_bytes() == before


def test_the_state_tree_is_the_whole_of_training():
    fields = {field.name for field in dataclasses.fields(start(FULL)[1])}
    covered = {"params", "stats", "opt_state", "ema", "ema_stats", "extra_state", "step", "key"}
    assert fields == covered


@pytest.mark.long
def test_a_run_of_another_version_is_neither_resumed_nor_replayed(whole, run, verb):
    recorded = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**recorded, "schema": 1}))
    before = (run / "metrics.jsonl").read_bytes()
    for words in (train(whole[0], run), ("replay", run)):
        code, _, err = verb(*words)
        assert code == 2
        assert "another version" in err
    assert (run / "metrics.jsonl").read_bytes() == before
    # It can still be looked at.
    assert verb("sample", run, "--n", 1)[0] == 0
