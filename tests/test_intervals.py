"""When something is due: periods and lists, in steps and epochs; where dispatches end."""

import dataclasses
import itertools
import threading
import time

import numpy as np
import pytest
from tiny import FULL, PLAIN, packed

from anigan_jax import config as configs
from anigan_jax import config_file, intervals
from anigan_jax.errors import UserError
from anigan_jax.intervals import Every, in_steps, parse
from anigan_jax.runtime import signals
from anigan_jax.storage import checkpoint, metrics_file
from anigan_jax.training import input, loop, replay
from anigan_jax.training.program import Program, best_length


@pytest.mark.parametrize(
    ("value", "steps", "stored"),
    [
        (20, [20, 40, 60], 20),
        ("20", [20, 40, 60], 20),
        ("20 steps", [20, 40, 60], 20),
        ("2 epochs", [14, 28, 42, 56], 14),
        ("1epoch", list(range(7, 61, 7)), 7),
        ("1,5, 3 epochs", [7, 21, 35], "7,21,35"),
        ("1,20,40", [1, 20, 40], "1,20,40"),
        ("1, every 20", [1, 20, 40, 60], "1,every 20"),
        ("1 step, every 2 epochs", [1, 14, 28, 42, 56], "1,every 14"),
        ("every 30, every 20", [20, 30, 40, 60], "every 30,every 20"),
        ("6 epochs,", [42], "42,"),
        (0, [], 0),
        ("0 epochs", [], 0),
    ],
)
def test_what_is_due(value, steps, stored):
    every = parse(value, 7)
    assert list(every.up_to(60)) == steps
    assert [step for step in range(1, 61) if every.due(step)] == steps
    assert list(every.up_to(60, 40)) == [step for step in steps if step > 40]
    assert bool(every) == bool(steps)
    # A resolved setting means the same without the length of an epoch.
    assert in_steps(value, 7) == stored
    assert parse(stored) == every


@pytest.mark.parametrize(
    "value", ["", "often", "2.5 epochs", "1;5", "5 epoch s", "epochs", "1,,2", "1, 2 weeks"]
)
def test_what_is_allowed_is_said(value):
    run = dataclasses.replace(FULL.run, sample_every=value)
    with pytest.raises(UserError, match=r"run\.sample_every is .*'1,5,10 epochs'"):
        configs.check(dataclasses.replace(FULL, run=run))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_every", 0),
        ("checkpoint_every", "0 epochs"),
        ("keep_every", -1),
        ("evaluate_every", "0,5"),
        ("keep_every", "1, every 0"),
        ("sample_every", "-2 epochs"),
    ],
)
def test_numbers_that_are_too_small_are_refused(name, value):
    run = dataclasses.replace(FULL.run, **{name: value})
    with pytest.raises(UserError, match=rf"run\.{name} is {value}; it must be at least"):
        configs.check(dataclasses.replace(FULL, run=run))


def test_no_other_types(tmp_path):
    with pytest.raises(UserError, match=r"run\.keep_every is 2\.5"):
        configs.check(dataclasses.replace(FULL, run=dataclasses.replace(FULL.run, keep_every=2.5)))


def test_settings_come_from_the_command_line_and_from_json():
    words = ["--run.sample-every", "1,5,10 epochs", "--run.keep-every=2epochs"]
    judged = ["--run.evaluate-every", "5"]
    config = config_file.override(FULL, [*words, "--run.checkpoint-every", "4", *judged], "")
    configs.check(config)
    assert (config.run.sample_every, config.run.keep_every) == ("1,5,10 epochs", "2epochs")
    assert config.run.checkpoint_every == 4
    assert configs.from_json(configs.to_json(config)) == config
    assert configs.identity(config) == configs.identity(FULL)
    resolved = configs.resolve(config, 8 * 7 + 3).run
    assert (resolved.sample_every, resolved.keep_every) == ("7,35,70", 14)
    due = intervals.of(resolved)
    # What is kept or evaluated is saved too.
    assert list(due.checkpoint.up_to(16)) == [4, 5, 8, 10, 12, 14, 15, 16]
    with pytest.raises(ValueError, match="epochs"):
        intervals.of(config.run)


@pytest.mark.parametrize(
    ("most", "stretches", "length"),
    [
        (10, [500, 500, 1000], 10),
        (10, [4, 4, 4], 4),
        # A second compilation does not pay.
        (10, [15, 15], 5),
        # Single steps on the way to 1, 20, 40, ...
        (10, [1, 19, *[20] * 69], 10),
        # 157 steps of an epoch: a prime.
        (10, [157] * 25, 9),
        (10, [3], 3),
        (10, [], 10),
        (10**12, [500, 500, 250], 250),
    ],
)
def test_the_fewest_dispatches(most, stretches, length):
    ends = np.cumsum([0, *stretches]).tolist()
    assert best_length(most, itertools.pairwise(ends)) == length


def run_of(**changes):
    run = dataclasses.replace(FULL.run, steps=17, steps_per_dispatch=4, devices=1, **changes)
    return dataclasses.replace(PLAIN, run=run)


IRREGULAR = {
    "sample_every": "1,17",
    "checkpoint_every": 100,
    "keep_every": "9,13",
    "keep_checkpoints": 1,
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(FULL, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("kind", ["device", "host"])
def test_a_dispatch_ends_where_something_is_due(pack, kind):
    made = Program(run_of(**IRREGULAR, input=kind), pack, {})
    chunks = list(made.chunks(0))
    ends = [chunk.end for chunk in chunks]
    assert [chunk.start for chunk in chunks] == [0, *ends[:-1]]
    assert {1, 9, 13, 17} <= set(ends)
    assert {chunk.end - chunk.start for chunk in chunks} == {1, made.length} == {1, 4}
    for chunk in chunks if kind == "host" else ():
        rows = chunk.local["rows"]["a"]["image"]
        assert rows.shape[1] == chunk.end - chunk.start


@pytest.mark.long
def test_irregular_intervals_change_no_bit_of_a_run(pack, tmp_path):
    """A run with two lengths of dispatch, resumed once, against one with a single length."""

    def trained(config, name):
        with signals.caught() as stop:
            assert loop.train(config, tmp_path / name, pack, (), stop) == 0
        found = metrics_file.read_metrics(tmp_path / name / "metrics.jsonl")
        return {line["step"]: line["fingerprint"] for line in found}

    want = trained(run_of(sample_every=17, checkpoint_every=17), "plain")
    irregular = run_of(**IRREGULAR)
    shorter = dataclasses.replace(irregular, run=dataclasses.replace(irregular.run, steps=9))
    trained(shorter, "run")
    assert trained(irregular, "run") == want
    assert len(want) == 18
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [9, 13, 17]
    # What was kept stays, also where later starts keep nothing.
    run = dataclasses.replace(irregular.run, steps=18, keep_every=0, log_every=5)
    longer = dataclasses.replace(irregular, run=run)
    assert list(trained(longer, "run")) == list(range(19))
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [9, 13, 18]
    # The replay reaches the end by the checkpoint alone, too.
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    told = replay.replay(longer, tmp_path / "run", pack, None)
    assert told == (0, "identical through step 18")
    shown = sorted(path.stem for path in (tmp_path / "run" / "previews" / "samples").iterdir())
    assert [int(name[5:]) for name in shown] == [1, 9, 17, 18]


def test_an_empty_interval_is_never_due():
    assert Every().after(5) is None
    assert not Every().due(5)


def test_a_thread_that_makes_batches_ahead_ends_with_who_takes_them():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    before = threading.active_count()
    taken = input.ahead(items())
    assert [next(taken), next(taken)] == [0, 1]
    taken.close()
    for _ in range(100):
        if threading.active_count() <= before:
            break
        time.sleep(0.1)
    assert threading.active_count() <= before and len(made) < 10
    assert list(input.ahead(iter(range(5)))) == [*range(5)]


def test_phases_that_all_end_before_the_run_are_refused(pack):
    class Ends(type(PLAIN.method)):
        def make(self, axis_name=None):
            made = super().make(axis_name)
            return made._replace(phases=(made.phases[0]._replace(steps=3),))

    method = Ends(
        **{f.name: getattr(PLAIN.method, f.name) for f in dataclasses.fields(PLAIN.method)}
    )
    run = dataclasses.replace(PLAIN.run, steps=4)
    config = dataclasses.replace(PLAIN, method=method, run=run)
    with pytest.raises(UserError, match="end at step 3"):
        Program(config, pack, {})
    Program(dataclasses.replace(config, run=dataclasses.replace(run, steps=3)), pack, {})
