"""A sweep: every run of the grid once, at equal updates, whatever interrupts it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import FULL, PLAIN, process_env, write_config

from anigan_jax import config_file
from anigan_jax.config_file import override
from anigan_jax.errors import UserError
from anigan_jax.storage import metrics_file
from anigan_jax.sweep import compare, grid


def test_axes():
    assert grid.axis("optimizers.g.name=adam,rmsprop") == (
        "optimizers.g.name",
        ["adam", "rmsprop"],
    )
    assert grid.axis("--method.d_scale=1,0.5") == ("method.d-scale", ["1", "0.5"])
    for bad in ("flip", "=a,b", "seed=1,2", "run.steps=1,2", "batch-size=4,4"):
        with pytest.raises(UserError):
            grid.axis(bad)


def test_switches_become_flags():
    assert grid.option("flip", "true") == ["--flip"]
    assert grid.option("method.split-d", "False") == ["--method.no-split-d"]
    assert grid.option("optimizers.g.learning-rate", "1e-3") == [
        "--optimizers.g.learning-rate",
        "1e-3",
    ]


def test_the_grid_is_every_combination_with_every_seed(tmp_path):
    config = str(write_config(tmp_path, "PLAIN"))
    varied = ["optimizers.g.name=adam,rmsprop", "optimizers.d.name=adam,rmsprop"]
    trials = grid.grid(config, ["--batch-size", "4"], varied, 3, tmp_path)
    assert len(trials) == len({trial.folder for trial in trials}) == 12
    found = {(*(o.name for o in t.config.optimizers.values()), t.config.seed) for t in trials}
    assert len(found) == 12
    assert {t.config.batch_size for t in trials} == {4}
    with pytest.raises(UserError, match="one path twice"):
        grid.grid(config, [], ["flip=true", "flip=false"], 1, tmp_path)
    # 1e-3 and 0.001 are one rate.
    with pytest.raises(UserError, match="the same run"):
        grid.grid(config, [], ["optimizers.g.learning-rate=1e-3,0.001"], 1, tmp_path)


@pytest.mark.long
def test_what_varies_may_be_given_for_all_runs_too(tmp_path):
    """And a flag in either spelling: nothing is said twice to a run."""
    name = str(write_config(tmp_path, "PLAIN"))
    given = [
        "--optimizers.g.name",
        "adam",
        "--flip",
        "--run.steps_per_dispatch",
        "10",
        "--batch_size",
        "4",
    ]
    given += ["--run.steps", "7", "--seed", "5"]
    varied = ["optimizers.g.name=adam,rmsprop", "flip=true,false", "batch-size=4,8"]
    trials = grid.grid(name, given, varied, 1, tmp_path)
    configs = [trial.config for trial in trials]
    found = {(c.optimizers["g"].name, c.flip, c.batch_size) for c in configs}
    assert len(found) == 8
    assert {c.seed for c in configs} == {5}
    for trial in trials:
        words = grid.command(name, trial, grid.Leg(20, 10), judged=True)
        config_file.refuse_repeats(words)
        config = override(config_file.load(name), words[4:], "test")
        assert (config.run.steps, config.run.steps_per_dispatch) == (20, 10)
    # Where the user does not say, a sweep does.
    (trial,) = grid.grid(name, [], ["flip=true"], 1, tmp_path)
    words = grid.command(name, trial, grid.Leg(20, 10), judged=True)
    config = override(config_file.load(name), words[4:], "test")
    assert config.run.steps_per_dispatch == grid.DISPATCH


def test_updates_are_counted_from_repeats(tmp_path):
    """Of a fixed schedule two a step; of CSC412's rule what its lines say."""
    fixed = grid.pace(PLAIN, PLAIN.method.make(), 44)
    assert (fixed.most, fixed.constant) == (2, 2)
    dynamic = grid.pace(FULL, FULL.method.make(), 44)
    assert (dynamic.most, dynamic.constant) == (20, None)
    assert dynamic.count(3, {"repeats/d": 7.0, "repeats/g": 3.0}) == 10
    trial = grid.Trial("as_printed", 0, tmp_path / "run", FULL, ())
    assert grid.updates_done(trial, dynamic).tolist() == [0]
    (trial.folder / "checkpoints" / "step_000000003").mkdir(parents=True)
    path = trial.folder / "metrics.jsonl"
    lines = [{"step": i, "repeats/d": 2.0 + i, "repeats/g": 3.0} for i in range(5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # The checkpoint is of step 3; what came after it was not kept.
    assert grid.updates_done(trial, dynamic).tolist() == [0, 6, 13, 21]
    path.write_text(json.dumps(lines[1]) + "\n" + json.dumps(lines[3]) + "\n")
    with pytest.raises(UserError, match="lacks step 2"):
        grid.updates_done(trial, dynamic)


def timed(folder, rates):
    """A run of 8 images a step whose lines have these speeds; a trial of it."""
    (folder / "checkpoints" / f"step_{len(rates):09d}").mkdir(parents=True, exist_ok=True)
    lines = [{"step": 0}, *({"step": i, "images_per_sec": r} for i, r in enumerate(rates, 1))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return grid.Trial("x", 0, folder, PLAIN, ())


def test_seconds_are_counted_from_speeds(tmp_path):
    """By hand; steps of no known speed count as the next one, those at the end as the last."""
    trial = timed(tmp_path / "run", [None, 4.0, 8.0, None, 2.0, None])
    assert grid.seconds_done(trial).tolist() == [0, 2, 4, 5, 9, 13, 17]
    assert grid.seconds_done(trial._replace(folder=tmp_path / "none")).tolist() == [0]
    with pytest.raises(UserError, match="recorded no speed"):
        grid.seconds_done(timed(tmp_path / "still", [None, 0.0]))


def test_a_run_goes_on_until_its_seconds_are_over(tmp_path):
    """A short leg tells how long a step takes; slower later, it needs fewer steps for the rest."""
    goal = grid.Goal(0, 10, 400)
    pace = grid.pace(PLAIN, PLAIN.method.make(), 44)

    def leg(rates):
        return grid.next_leg(timed(tmp_path / "run", rates), goal, pace, 44)

    assert leg([]) == (grid.FIRST, grid.FIRST)
    # A second a step: 40 a point, so nine points more after the first 50 steps.
    assert leg([8.0] * 50) == (400, 40)
    # Then two seconds each: 50 + 2 x 110 are over, and the mean is 1.69.
    assert leg([8.0] * 50 + [4.0] * 110) == (240, 40)
    assert leg([8.0] * 50 + [4.0] * 174) == (240, 40)
    assert leg([8.0] * 50 + [4.0] * 175) is None


def test_runs_are_compared_at_equal_seconds(tmp_path):
    """The quicker variant has more steps by then, and that is in its favor."""
    runs = []
    for name, rate, kids in (("quick", 8.0, (0.8, 0.4)), ("slow", 4.0, (0.7, 0.5))):
        trial = timed(tmp_path / name, [rate] * 20)._replace(variant=name)
        judged = [{"step": 10 * (i + 1), "kid-r": kid} for i, kid in enumerate(kids)]
        runs.append(compare.read(trial, grid.seconds_done(trial))._replace(judged=judged))
    found = compare.compare(runs, grid.Goal(0, 2, 20), {"config": "x", "seeds": [0]})
    assert (found["unit"], found["compared_at"]) == ("seconds", 20)
    last = found["stages"]["kid-r"][-1]
    assert {name: cell["mean"] for name, cell in last["variants"].items()} == {
        "quick": 0.4,
        "slow": 0.7,
    }
    assert [run["compared_steps"] for run in found["runs"]] == [20, 10]
    first, second = compare.tables(found)
    assert "at 20 seconds" in first.title
    assert second.columns[0] == "seconds"
    assert "training steps alone" in first.notes[0]


@pytest.mark.long
def test_a_study_file_names_its_variants(tmp_path):
    """Each with every value that varies; what all runs are given gives way to its own."""
    study, config = tmp_path / "study.txt", str(write_config(tmp_path, "PLAIN"))
    study.write_text(f"# Two.\nwide: --batch-size 16  # more\n\nother: {config} --no-flip\n")
    named = grid.variants(study)
    assert named == {"wide": ["--batch-size", "16"], "other": [config, "--no-flip"]}
    given = ["--batch-size", "4"]
    trials = grid.grid("quickstart", given, ["method.r1=0,1"], 2, tmp_path, named)
    assert [trial.variant for trial in trials[:4]] == [
        "wide, r1=0",
        "wide, r1=1",
        "other, r1=0",
        "other, r1=1",
    ]
    assert [trial.config.batch_size for trial in trials[:4]] == [16, 16, 4, 4]
    assert [trial.config.name for trial in trials[1:3]] == ["quickstart", "tiny"]
    assert {trial.seed for trial in trials[4:]} == {trials[0].seed + 1}
    words = grid.command("quickstart", trials[2], grid.Leg(20, 10), judged=True)
    assert words[:2] == ["train", config]
    assert trials[0].folder.name == f"wide_r1-0_seed-{trials[0].seed}"
    for text, said in (
        ("wide --flip", "line 1 is not 'NAME: FLAGS'"),
        ("a: --flip\na: --no-flip", "names 'a' a second time"),
        ("# none", "names no variant"),
        ("a: 'open", "line 1"),
    ):
        study.write_text(text)
        with pytest.raises(UserError, match=said):
            grid.variants(study)
    with pytest.raises(UserError, match="cannot be read"):
        grid.variants(tmp_path / "absent")


@pytest.mark.long
def test_the_study_that_comes_along_compares_equal_widths(tmp_path):
    named = grid.variants(Path("faces"))
    varied = ["method.augment=,color translation"]
    trials = grid.grid("anime_faces", [], varied, 1, tmp_path, named)
    assert len(trials) == 2 * len(named) >= 14
    methods = [trial.config.method for trial in trials]
    assert {m.generator.base_channels for m in methods} == {32}
    assert {m.discriminator.base_channels for m in methods} == {32}
    for m in methods:
        assert bool(m.r1) == bool(m.r2) == m.adversarial.pairs
        assert not (m.r1 and m.discriminator.batch_norm)


def test_a_collapsed_variant_is_not_ahead(tmp_path):
    """One face that is good has the best KID and FD, and no variety; MiND sees it by itself."""
    (one, *_) = grid.grid(str(write_config(tmp_path, "PLAIN")), [], ["flip=true"], 1, tmp_path)
    kids = {"one face": (0.5, 0.4, 0.2), "many": (0.9, 0.8, 0.7), "some": (1.0, 0.9, 0.8)}
    kept = {"one face": (0.9, 0.9, 0.3), "many": (0.9, 0.9, 0.9), "some": (0.9, 0.9, 0.9)}
    runs = [
        compare.Run(
            one._replace(variant=name),
            np.arange(7) * 2,
            [],
            [
                {"step": 2 * i + 2, "kid-r": kid, "fd-r": 9 * kid, "mind-r": kid, "variety-r": v}
                for i, (kid, v) in enumerate(zip(kids[name], kept[name], strict=True))
            ],
            {},
        )
        for name in kids
    ]
    found = compare.compare(runs, grid.Goal(12, 3), {"config": "x", "seeds": [0]})
    ahead = {
        name: [row["order"] and row["order"]["best"] for row in rows]
        for name, rows in found["stages"].items()
    }
    assert ahead["kid-r"] == ahead["fd-r"] == ["one face", "one face", "many"]
    assert ahead["mind-r"] == ["one face"] * 3
    means = {name: cell["mean"] for name, cell in found["best"]["kid-r"].items()}
    assert means == {"one face": 0.4, "many": 0.7, "some": 0.8}
    assert "variety" in compare.tables(found)[0].notes[0]


def test_each_judge_has_columns_and_a_variety_of_its_own(tmp_path):
    """A collapse that one judge sees takes the win by that judge's KID alone."""
    (one, *_) = grid.grid(str(write_config(tmp_path, "PLAIN")), [], ["flip=true"], 1, tmp_path)
    scores = {"kid-a": 0.5, "variety-a": 1.0, "kid-b": 0.5, "variety-b": 0.2}
    judged = [{"step": step, **scores} for step in (2, 4)]
    run = compare.Run(one, np.arange(5) * 2, [], judged, {})
    assert (compare.varied(run, "kid-a", 8), compare.varied(run, "kid-b", 8)) == (True, False)
    found = compare.compare([run], grid.Goal(8, 2), {"config": "x", "seeds": [0]})
    head = compare.tables(found)[0].columns
    assert {"KID (a)", "best KID (a)", "KID (b)", "Variety (b)"} <= set(head)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "say where"),
        (("--workdir", "DIR"), "say what varies"),
        (("--workdir", "DIR", "--vary", "flip=true,false", "--seeds", "0"), "at least 1"),
        (("--workdir", "DIR", "--vary", "run.steps=1,2"), "length is the same"),
        (
            ("--workdir", "DIR", "--vary", "flip=true", "--updates", "9", "--run.steps", "4"),
            "both set the length",
        ),
        (
            ("--workdir", "DIR", "--vary", "flip=true", "--updates", "9", "--seconds", "4"),
            "--seconds and --updates both set the length",
        ),
        (("--workdir", "DIR", "--variants", "absent"), "cannot be read as a study file"),
    ],
)
def test_refusals(verb, tmp_path, args, said):
    args = [tmp_path / "sweep" if word == "DIR" else word for word in args]
    code, out, error = verb("sweep", write_config(tmp_path, "PLAIN"), *args)
    assert code == 2
    assert said in error
    assert "Traceback" not in out + error
    assert not (tmp_path / "sweep" / "sweep.json").exists()


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_compares(tmp_path):
    """Two schedules at equal updates, in processes, one stopped by a signal."""
    words = ["sweep", str(write_config(tmp_path)), "--workdir", str(tmp_path / "s"), "--seeds", "1"]
    words += ["--vary", "method.schedule.kind=fixed,as_printed", "--updates", "40"]
    words += ["--points", "2", "--run.eval-network", "random", "--run.evaluate-n", "40"]
    command = [sys.executable, "-m", "anigan_jax", *words]
    options = {"env": process_env(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    first = subprocess.Popen(command, text=True, **options)
    runs = tmp_path / "s"
    while not list(runs.glob("*/metrics.jsonl")) and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    out, _ = first.communicate(timeout=280)
    assert first.returncode == 128 + signal.SIGTERM, out
    assert not (runs / "sweep.json").exists()
    done = subprocess.run(command, text=True, timeout=500, check=False, **options)
    assert done.returncode == 0, done.stdout
    folders = [path for path in runs.iterdir() if path.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        lines = metrics_file.read_metrics(folder / "metrics.jsonl")[1:]
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        updates = sum(line.get("repeats/d", 1) + line.get("repeats/g", 1) for line in lines)
        assert updates >= 40
        assert any(
            "kid-random" in line for line in metrics_file.read_metrics(folder / "evaluation.jsonl")
        )
    found = json.loads((runs / "sweep.json").read_text())
    assert found["compared_at"] <= 40
    assert "as_printed" in (runs / "sweep.md").read_text()
    for name in ("sweep.png", "samples.png"):
        assert np.asarray(Image.open(runs / name).convert("L")).std() > 5
    # Everything is there already.
    again = subprocess.run(command, text=True, timeout=200, check=False, **options)
    assert again.returncode == 0
    assert again.stdout.count("complete at step") == 2
