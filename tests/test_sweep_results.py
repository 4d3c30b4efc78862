"""What a sweep makes of its runs: their commands, pictures, data, and those that diverge."""

import dataclasses
import shlex

import numpy as np
import pytest
from PIL import Image
from tiny import untrained, write_config

from anigan_jax import api, config_file
from anigan_jax.errors import UserError
from anigan_jax.storage import images
from anigan_jax.sweep import children, compare, grid


def judged_run(tmp_path, variant="one", **rest):
    (one, *_) = grid.grid(str(write_config(tmp_path, "PLAIN")), [], ["flip=true"], 1, tmp_path)
    judged = [{"step": step, "kid-a": 0.5, "variety-a": 1.0} for step in (2, 4)]
    return compare.Run(one._replace(variant=variant, **rest), np.arange(5) * 2, [], judged, {})


def test_the_command_of_a_run_can_be_given(tmp_path):
    run = judged_run(tmp_path, flags=("--run.steps", "100", "--flip", "--run.epochs", "3"))
    found = compare.compare([run], grid.Goal(8, 2), {"config": "x", "seeds": [0]})
    words = shlex.split(found["runs"][0]["command"])
    assert words[-3:] == ["--flip", "--run.steps", "4"]
    assert words.count("--run.steps") == 1 and "--run.epochs" not in words


def test_a_variants_own_switch_replaces_that_of_all_runs(tmp_path):
    config = str(write_config(tmp_path, "PLAIN"))
    named = {"plain": ["--no-flip"], "wide": ["--batch-size", "16"]}
    trials = grid.grid(config, ["--flip"], ["method.r1=0,1"], 1, tmp_path, named)
    assert [trial.config.flip for trial in trials] == [False, False, True, True]
    assert "--flip" not in trials[0].flags


def test_runs_of_several_sizes_are_shown_side_by_side(tmp_path):
    rows = {}
    for side in (8, 16):
        folder = tmp_path / str(side)
        (folder / "previews/samples").mkdir(parents=True)
        tiles = np.full((9, side, side, 3), 255 * (side == 8), np.uint8)
        images.save_image(images.grid(tiles), folder / "previews/samples/step_000000004.png")
        run = judged_run(tmp_path, str(side), folder=folder)
        method = dataclasses.replace(
            run.trial.config.method,
            generator=dataclasses.replace(run.trial.config.method.generator, size=side),
        )
        config = dataclasses.replace(run.trial.config, method=method)
        rows[side] = run._replace(trial=run.trial._replace(config=config))
    shown = np.asarray(Image.open(compare.samples([*rows.values()], 8, tmp_path / "all.png")))
    assert shown.shape[0] == 2 * 16 + 3 * 2


def test_one_that_diverges_is_left_out_and_told(tmp_path, monkeypatch, capsys):
    """The others go on, and are compared; the exit code tells."""
    (a, b) = grid.grid(
        str(write_config(tmp_path, "PLAIN")), [], ["flip=true,false"], 1, tmp_path / "s"
    )
    (tmp_path / "s").mkdir()
    done = {a: [], b: []}

    class Child:
        def __init__(self, trial):
            self.trial = trial

        def poll(self):
            return 3 if self.trial is a else 0

    def start(trial, log, environ):
        done[trial].append(1)
        log.write_text("step 1\nerror: training diverged at step 9\n" if trial is a else "")
        return Child(trial)

    monkeypatch.setattr(children, "start", start)
    monkeypatch.setattr(children, "POLL", 0)
    legs = lambda trial: None if done[trial] else grid.Leg(9, 9)  # noqa: E731
    code, message, diverged = children.train([a, b], legs, lambda trial, leg: trial, 1)
    assert (code, message) == (0, "")
    assert [*diverged] == [a] and "diverged at step 9" in diverged[a]
    assert len(done[a]) == len(done[b]) == 1
    about = {"config": "x", "seeds": [0], "diverged": ["Left out: a: it diverged"]}
    found = compare.compare([judged_run(tmp_path)], grid.Goal(8, 2), about)
    assert "Left out: a" in compare.tables(found)[0].notes[-1]


@pytest.mark.parametrize(
    ("visible", "jobs", "shares"),
    [
        (None, 2, ["0", "1"]),
        ("4,5,6,7", 2, ["4,5", "6,7"]),
        ("3", 2, ["3", "3"]),
        ("4,5", 1, ["4,5"]),
    ],
)
def test_runs_at_a_time_share_the_gpus(tmp_path, monkeypatch, visible, jobs, shares):
    # A container may be given the third and the sixth.
    for name in ("nvidia2", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(children, "DEVICES", tmp_path)
    monkeypatch.delenv(children.GPUS, raising=False)
    if visible:
        monkeypatch.setenv(children.GPUS, visible)
    found = [children.environment_of(place, jobs)[children.GPUS] for place in range(jobs)]
    assert found == shares


def test_runs_of_other_data_are_refused(tmp_path):
    folder = untrained(tmp_path / "run", "PLAIN")
    own = api.data_of(config_file.load(str(tmp_path / "run" / "tiny_config.py")))
    other = own._replace(manifest={**own.manifest, "sha256": "b" * 64})
    grid.refuse_other_data(tmp_path / "absent", other)
    grid.refuse_other_data(folder, own)
    with pytest.raises(UserError, match="trained on other data"):
        grid.refuse_other_data(folder, other)


def test_a_disk_without_locks_keeps_no_sweep_waiting(tmp_path, monkeypatch):
    (tmp_path / "lock").touch()
    asked = []

    def flock(*_):
        asked.append(1)
        raise errors.pop(0)

    monkeypatch.setattr(children.fcntl, "flock", flock)
    monkeypatch.setattr(children, "POLL", 0)
    errors = [BlockingIOError(), OSError(38, "Function not implemented")]
    assert children.await_lock(tmp_path, [])
    assert len(asked) == 2
