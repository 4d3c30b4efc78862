"""`anigan reproduce --depart`: settings that differ from a report's, told on its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anigan_jax import config_file
from anigan_jax.errors import UserError
from anigan_jax.reproduce import page, plan, runner
from anigan_jax.reproduce.plan import Place
from anigan_jax.reproduce.reports import REPORTS

AUGMENT = "method.augment=color translation"


def planned(name: str, *departs: str, budget: plan.Budget = plan.HALF) -> plan.Work:
    return plan.plan(REPORTS[name], budget, Place(Path("work"), "FACES", "PHOTOS"), departs)


def test_a_departure_is_in_every_run_that_has_the_setting():
    plain, work = planned("tsinghua"), planned("tsinghua", AUGMENT, "flip=true")
    for name, run in work.runs.items():
        method = run.config.method
        assert run.config.flip
        assert getattr(method, "augment", ()) == (
            ("color", "translation") if name == "dcgan" else ()
        )
        # What stands on the page trains the same run.
        assert config_file.override(run.full, list(run.flags), "x") == run.config
        assert (run.steps, run.images) == (plain.runs[name].steps, plain.runs[name].images)


def test_as_many_images_in_batches_of_another_size():
    own, other = (planned("aiub", *d).runs["faces"] for d in ((), ("batch-size=32",)))
    assert (own.config.batch_size, other.config.batch_size) == (128, 32)
    assert other.images == own.images
    assert other.steps == 4 * own.steps
    assert other.flags.count("--batch-size") == 1
    small = planned("aiub", "batch_size=16", budget=plan.SMALL).runs["faces"]
    assert (small.config.batch_size, small.steps) == (16, 360_000 // 16)
    # Also the report's own, which the budget has not.
    same = planned("aiub", "batch-size=128", budget=plan.SMALL).runs["faces"]
    assert (same.config.batch_size, same.steps) == (128, round(360_000 / 128))
    assert same.flags.count("--batch-size") == 1


def test_the_reports_own_studies_stay():
    runs = planned("ucsd", "optimizers.g.name=lion", "optimizers.d.b1=0.25").runs
    assert runs["rmsprop_adam_seed_0"].config.optimizers["g"].name == "rmsprop"
    assert runs["spectral"].config.optimizers["g"].name == "lion"
    assert {run.config.optimizers["d"].b1 for run in runs.values()} == {0.25}


def test_what_a_report_counts_in_its_own_epochs_stays():
    runs = planned("aiub", "method.schedule.d-steps=3").runs
    assert runs["faces"].config.method.schedule.d_steps == 3
    steps = runs["alternating"].steps
    assert runs["alternating"].config.method.schedule.d_steps == round(steps / 25)
    assert runs["alternating"].flags.count("--method.schedule.d-steps") == 1


def test_what_every_run_of_the_report_sets_is_refused():
    with pytest.raises(UserError, match="the report's runs set it"):
        planned("csc412", "method.schedule.kind=fixed")


@pytest.mark.parametrize(
    "departure, told",
    [
        ("x", "PATH=VALUE"),
        ("=3", "PATH=VALUE"),
        ("run.steps=3", "--budget"),
        ("data.size=32", "--budget"),
        ("method.generator.base-channels=8", "--budget"),
        ("seed=4", "--budget"),
        ("method.augment=colour", "'color'"),
        ("method.agument=color", "agument"),
        ("batch-size=0", "batch"),
    ],
)
def test_what_cannot_be_departed_in_is_refused(departure, told):
    with pytest.raises(UserError, match=told):
        planned("aiub", departure)


def test_it_stands_on_the_page_and_goes_on_without_being_said(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "networks", lambda: {"judge": "random", "features": ""})
    place, report = Place(tmp_path / "work", "FACES"), REPORTS["aiub"]
    work = runner.opened(report, plan.SMALL, place, (AUGMENT,))
    told = page.table(work, report.experiments).notes
    assert any(AUGMENT in note for note in told)
    place.workdir.mkdir()
    kept = {"report": "aiub", "budget": "small", "judge": "random", "features": ""}
    (place.workdir / runner.PLAN).write_text(json.dumps({**kept, "departs": [AUGMENT]}))
    for again in ((), None, (AUGMENT,)):
        assert runner.opened(report, plan.SMALL, place, again) == work
    with pytest.raises(UserError, match="color translation"):
        runner.opened(report, plan.SMALL, place, ("flip=true",))
    text = page.write(work, {}).read_text()
    assert f"Departs from the report, in every run that has the setting: {AUGMENT}." in text
    assert "--depart" in text
    # As before without one.
    (place.workdir / runner.PLAN).write_text(json.dumps(kept))
    assert runner.opened(report, plan.SMALL, place).departs == ()
    assert "Departs" not in page.write(runner.opened(report, plan.SMALL, place), {}).read_text()
    with pytest.raises(UserError, match="no --depart"):
        runner.opened(report, plan.SMALL, place, ("flip=true",))
