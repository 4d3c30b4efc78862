"""`anigan reproduce`: the plans hold the five reports, and one command does them, resumably."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError
from anigan_jax.report.table import Table, as_text
from anigan_jax.reproduce import numbers, plan, runner
from anigan_jax.reproduce.plan import Budget, Place
from anigan_jax.reproduce.reports import REPORTS
from anigan_jax.storage import metrics_file
from anigan_jax.training.artifacts import Artifacts

TINY = Budget("small", lambda training: (64, 8), 1 / 16, 8)
# Those experiments of AIUB that one run is enough for.
ONE_RUN = ("table", "pictures", "curves")
# What the reports did, and the experiments here that do it.
DONE = {
    "sjtu": {
        "pictures at epochs 5, 20, 40": "figure-2",
        "one prompt over the training": "figure-3",
        "prompts of tables III to V": "tables",
        "ratios and D x 0.2": "ratios",
        "texts of 256 and 128": "text-256-128",
        "retrieval by the text encoder": "text-encoder",
        "the system as a whole": "system",
    },
    "tsinghua": {
        "DCGAN, curves and samples": "dcgan",
        "interpolation": "interpolation",
        "epochs 10 to 100": "epochs",
        "CycleGAN, figures 7 and 9": "cyclegan",
        "downs; MSE or BCE": "downs-and-loss",
        "CartoonGAN, figure 8": "cartoongan",
        "landmark, grayscale, color": "extra-losses",
        "three models": "three-models",
    },
    "csc412": {
        "summaries": "summaries",
        "pictures of both strategies": "strategies",
        "losses and accuracy after 300": "after-300",
        "equal updates": "equal-updates",
        "equal iterations": "equal-iterations",
    },
    "aiub": {
        "table by epoch": "table",
        "curves and scores": "curves",
        "D epochs, then G epochs": "alternation",
    },
    "ucsd": {
        "epochs 1, 10, 20 and 11, 24": "baseline-epochs",
        "loss curves": "losses",
        "optimizers": "optimizers",
        "kernels": "kernels",
        "D against kNN": "discriminator",
    },
}
# Images that the longest training of each config sees in its report.
LENGTHS = {
    "sjtu_text_gan": 8_956 * 40,
    "tsinghua_dcgan": 115_087 * 100,
    "tsinghua_cyclegan": 3_666 * 300,
    "tsinghua_cartoongan": 3_666 * 100,
    "csc412_keras_dcgan": 1_400 * 128,
    "aiub_dcgan": 63_632 * 25,
    "ucsd_dcgan": 60_000 * 20,
    "ucsd_sn_dcgan": 60_000 * 24,
}


@pytest.fixture(autouse=True)
def without_networks(monkeypatch):
    """Whatever weights this machine has."""
    monkeypatch.setattr(plan, "networks", lambda: {"judge": "random", "features": ""})


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("faces")
    for i in range(40):
        Image.fromarray(painted.paint(0, i, 64)).save(folder / f"{i:02}.png")
    return str(folder)


@functools.cache
def planned(name: str, budget: Budget, **place) -> plan.Work:
    where = Place(Path("work"), "FACES", "PHOTOS", features="vgg19")._replace(**place)
    return plan.plan(REPORTS[name], budget, where)


def test_every_experiment_of_the_reports_is_there():
    assert sum(map(len, DONE.values())) == 28
    assert DONE.keys() == REPORTS.keys()
    for name, rows in DONE.items():
        names = [experiment.name for experiment in REPORTS[name].experiments]
        assert len(set(names)) == len(names)
        assert set(rows.values()) <= set(names)
        for experiment in REPORTS[name].experiments:
            trainings = {training.name for training in REPORTS[name].trainings}
            assert set(experiment.runs) <= trainings
            assert experiment.shows


@pytest.mark.parametrize("name", REPORTS)
def test_no_training_is_of_no_use(name):
    report = REPORTS[name]
    used = {run for experiment in report.experiments for run in experiment.runs}
    used |= {training.encoder for training in report.trainings}
    assert used >= {training.name for training in report.trainings}


@pytest.mark.long
@pytest.mark.parametrize("name", REPORTS)
def test_full_is_the_reports_own_length_and_width(name):
    for run in planned(name, plan.FULL).runs.values():
        assert abs(run.images - run.training.images) <= run.config.batch_size / 2
        assert plan.widths(run.config) == plan.widths(run.full)
        assert run.config.batch_size == run.full.batch_size
        if run.training.config in LENGTHS:
            assert run.training.images == LENGTHS[run.training.config]


@pytest.mark.long
@pytest.mark.parametrize("name", REPORTS)
def test_half_is_the_reports_own_length_at_half_its_width(name):
    full, half = (planned(name, budget).runs for budget in (plan.FULL, plan.HALF))
    for run in half.values():
        other = full[run.training.name]
        assert (run.steps, run.config.batch_size) == (other.steps, other.config.batch_size)
        assert {k: 2 * v for k, v in plan.widths(run.config).items()} == plan.widths(run.full)
        rate = [run.images / planned.seconds for planned in (other, run)]
        assert rate[0] < rate[1] < 8 * rate[0]


@pytest.mark.long
@pytest.mark.parametrize("name", REPORTS)
def test_small_takes_half_an_hour(name):
    runs = planned(name, plan.SMALL).runs.values()
    assert sum(run.seconds for run in runs) <= 30 * 60
    for run in runs:
        assert f"of {run.training.whose}" in run.budget()
        assert plan.widths(run.config) != plan.widths(run.full)


def test_what_happens_at_an_epoch_happens_at_its_share():
    run = planned("tsinghua", plan.FULL).runs["cyclegan"]
    assert run.config.optimizers["g"].boundaries == (round(run.steps * 120 / 300),)
    assert run.config.optimizers["d"].unit == "step"
    cartoon = planned("tsinghua", plan.SMALL).runs["cartoongan_landmark"]
    assert cartoon.config.method.landmark == 1
    assert cartoon.config.method.content_steps == round(cartoon.steps / 10)
    assert plan.step_at(1, 25, 8) == 1
    assert plan.step_at(25, 25, 8) == 8


def test_the_settings_that_the_reports_vary():
    pairs = {
        (*(run.config.optimizers[player].name for player in "gd"), run.config.seed)
        for run in planned("ucsd", plan.SMALL).runs.values()
    }
    assert len(pairs) == 12
    kinds = {
        (run.config.method.schedule.kind, run.config.seed)
        for run in planned("csc412", plan.FULL).runs.values()
    }
    assert len(kinds) == 9
    sjtu = planned("sjtu", plan.SMALL).runs
    assert [sjtu[n].config.method.schedule.g for n in ("ratio_2", "ratio_5")] == [2, 5]
    assert sjtu["ratio_2"].config.optimizers["d"].learning_rate == 2e-4
    assert sjtu["final"].config.optimizers["d"].learning_rate == pytest.approx(4e-5)
    assert sjtu["final"].config.method.encoder.path == "work/runs/text_encoder"


@pytest.mark.long
def test_what_is_missing_is_named_with_what_to_give():
    work = planned("tsinghua", plan.SMALL, photos="", features="")
    assert work.runs["dcgan"].missing == ""
    assert "--photos" in work.runs["cyclegan"].missing
    with_photos = planned("tsinghua", plan.SMALL, features="").runs
    assert with_photos["cyclegan"].missing == ""
    assert "anigan weights" in with_photos["cartoongan"].missing
    other = planned("tsinghua", plan.SMALL, features="vgg16").runs["cartoongan"]
    assert other.config.method.features.network == "vgg16"


def steps_of(folder: Path) -> list[tuple]:
    lines = metrics_file.read_metrics(folder / "metrics.jsonl")
    return [(line["step"], line["fingerprint"]) for line in lines]


@pytest.fixture(scope="module")
def finished(faces, tmp_path_factory):
    """All but the last experiment in one go: the plan, the exit code, what was told."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "networks", lambda: {"judge": "random", "features": ""})
        place = Place(tmp_path_factory.mktemp("aiub") / "work", faces)
        work = runner.opened(REPORTS["aiub"], TINY, place)
        code = runner.reproduce(work, ONE_RUN, told.append)
    return work, code, told


def test_one_command_does_a_report(finished):
    work, code, told = finished
    assert code == 0, told
    page = (work.place.workdir / "report.html").read_text()
    places = [page.index(f'<section id="{e.name}">') for e in work.report.experiments]
    assert places == sorted(places)
    assert page.count("It has not been run yet") == 1
    # The report's number stands beside ours, with its budget.
    assert "0.9683" in page
    assert "64 images seen, 0.0 % of the report&#39;s 1,590,800; 4 of 64 channels" in page
    assert "<script" not in page
    assert 'src="data:image/webp' in page
    assert page.count("<img") == page.count('src="data:') >= 9
    assert "anigan reproduce aiub" in page
    steps, _ = zip(*steps_of(work.place.run("faces")), strict=True)
    assert steps == tuple(range(9))


def test_it_is_not_done_twice(finished, monkeypatch):
    work, _, _ = finished
    told: list[str] = []
    monkeypatch.setattr(runner.api, "start", lambda *args: pytest.fail("it trains again"))
    before = {p: p.stat().st_mtime_ns for p in (work.place.workdir / "results").iterdir()}
    assert runner.reproduce(work, ONE_RUN, told.append) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert not [line for line in told if "about" in line]


@pytest.mark.long
def test_a_stopped_one_goes_on_to_the_same_numbers(finished, faces, tmp_path, monkeypatch):
    straight, _, _ = finished
    work = runner.opened(REPORTS["aiub"], TINY, Place(tmp_path / "work", faces))
    sample, seen = Artifacts.sample, []

    def stopped(self, at, state):
        sample(self, at, state)
        if not seen:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(at)

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Artifacts, "sample", stopped)
        assert runner.reproduce(work, ("table",), told.append) == 128 + signal.SIGTERM
    assert told[-1] == "stopped; the same command continues"
    assert not work.finished("faces")
    assert len(steps_of(work.place.run("faces"))) < 9
    assert runner.reproduce(work, ("table",), told.append) == 0
    assert steps_of(work.place.run("faces")) == steps_of(straight.place.run("faces"))
    both = [
        json.loads((w.place.workdir / "results" / "table.json").read_text())["shown"]
        for w in (straight, work)
    ]
    assert both[0] == both[1]
    page = (work.place.workdir / "report.html").read_text()
    # The others of the report are on the page too.
    assert page.count("It has not been run yet") == len(work.report.experiments) - 1


def test_a_folder_of_something_else_is_refused(finished, faces, tmp_path):
    work, _, _ = finished
    with pytest.raises(UserError, match="reproduction of aiub at budget small"):
        runner.opened(REPORTS["ucsd"], plan.SMALL, work.place)
    with pytest.raises(UserError, match="at budget small"):
        runner.opened(REPORTS["aiub"], plan.FULL, work.place)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        runner.opened(REPORTS["aiub"], plan.SMALL, Place(tmp_path, faces))
    (work.place.workdir / "plan.json").replace(work.place.workdir / "kept.json")
    (work.place.workdir / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        runner.opened(REPORTS["aiub"], TINY, work.place)
    (work.place.workdir / "kept.json").replace(work.place.workdir / "plan.json")


def test_what_cannot_be_done_is_on_the_page(faces, tmp_path):
    work = runner.opened(REPORTS["tsinghua"], TINY, Place(tmp_path / "work", faces))
    told: list[str] = []
    assert runner.reproduce(work, ("cyclegan",), told.append) == 1
    assert any("--photos" in line for line in told)
    assert "--photos" in (tmp_path / "work" / "report.html").read_text()
    assert not (tmp_path / "work" / "runs").exists()


@pytest.mark.long
def test_a_run_that_fails_leaves_the_others(faces, tmp_path, monkeypatch):
    """One that diverges is a result: the page says so, and the rest is done."""
    work = runner.opened(REPORTS["csc412"], TINY, Place(tmp_path / "work", faces))

    def start(config, folder, command, stop):
        raise runner.DivergedError(f"training diverged in {folder.name}")

    monkeypatch.setattr(runner.api, "start", start)
    told: list[str] = []
    assert runner.reproduce(work, ("summaries", "after-300"), told.append) == 1
    page = (tmp_path / "work" / "report.html").read_text()
    assert "training diverged in fixed_seed_0" in page
    # Exact at any budget.
    assert "2,734,531" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("aiub", "--workdir", "DIR"), "--data FACES"),
        (("aiub", "--data", "FACES"), "--workdir DIR"),
        (("aiub", "--data", "FACES", "--workdir", "DIR", "--photos", "P"), "is for tsinghua"),
        (("aiub", "--data", "FACES", "--workdir", "DIR", "--only", "figure-9"), "choose from"),
        (("aiub", "--data", "no/such", "--workdir", "DIR"), "no/such"),
        (("mit", "--data", "FACES", "--workdir", "DIR"), "mit"),
        (("aiub", "--data", "FACES", "--workdir", "DIR", "--budget", "huge"), "huge"),
    ],
)
def test_refusals(verb, faces, tmp_path, words, said):
    given = {"DIR": str(tmp_path / "work"), "FACES": faces}
    code, out, error = verb("reproduce", *(given.get(word, word) for word in words))
    assert code == 2
    assert said in error
    assert "Traceback" not in out + error
    assert not (tmp_path / "work" / "runs").exists()


def test_the_plan_is_printed(verb, tmp_path):
    words = ("--data", "FACES", "--workdir", tmp_path / "work", "--dry-run")
    code, out, _ = verb("reproduce", "tsinghua", *words)
    assert code == 0
    for experiment in REPORTS["tsinghua"].experiments:
        assert experiment.name in out
    assert "on 2 CPU cores" in out
    assert "--photos PATH" in out
    assert not (tmp_path / "work").exists()
    code, out, _ = verb("reproduce", "aiub", *words, "--only", "curves", "--budget", "full")
    assert "1,590,784" in out
    assert "alternation" not in out


def trained(work: plan.Work, name: str, lines: list[dict], judged=()) -> None:
    """A run directory with nothing but its numbers."""
    run = work.runs[name]
    (run.folder / "checkpoints" / f"step_{run.steps:09d}").mkdir(parents=True)
    for file, found in (("metrics.jsonl", lines), ("evaluation.jsonl", judged)):
        (run.folder / file).write_text("".join(json.dumps(line) + "\n" for line in found))


def test_numbers_beside_the_reports(tmp_path):
    budget = Budget("small", lambda training: (50 * 8, 8), 1 / 16, 8)
    work = plan.plan(REPORTS["aiub"], budget, Place(tmp_path, "FACES"))
    keys = {"loss/g": "G's loss", "score/real": "real score"}
    lines = [{"step": i, "loss/g": float(i), "score/real": 0.5} for i in range(1, 51)]
    trained(work, "faces", lines)
    (table,) = numbers.by_part("faces", keys, {1: (3.3, 0.6), 25: (4.9, 0.97)})(work)
    # Two steps an epoch: the mean of steps 49 and 50.
    assert table.rows == (("1", "3.3", "1.5", "0.6", "0.5"), ("25", "4.9", "49.5", "0.97", "0.5"))
    assert any("400 images seen" in note for note in table.notes)
    with pytest.raises(UserError, match="has not been trained"):
        list(numbers.by_part("alternating", keys, {})(work))


@pytest.mark.long
def test_scores_over_seeds(tmp_path):
    work = plan.plan(REPORTS["ucsd"], plan.SMALL, Place(tmp_path, "FACES"))
    for seed, kid in enumerate((2.0, 2.2, 2.4)):
        for name, more in (("adam_rmsprop", 0.0), ("rmsprop_rmsprop", 1.0)):
            run = f"{name}_seed_{seed}"
            step = work.runs[run].steps
            trained(
                work, run, [], [{"step": step, "kid-random": kid + more, "coverage-random": 0.0}]
            )
    variants = {n: [f"{n}_seed_{s}" for s in range(3)] for n in ("adam_rmsprop", "rmsprop_rmsprop")}
    (table,) = numbers.scores(variants, 20, "Adam is best")(work)
    # A coverage of 0 is a finding, too.
    assert set(table.rows[0]) == {"adam_rmsprop", "3", "2.2 ± 0.2", "0 ± 0"}
    # The worst seed of one is better than the best of the other.
    assert any(note.endswith("(random): adam_rmsprop.") for note in table.notes)
    (table,) = numbers.scores({**variants, "adam_adam": ["baseline"]}, 20, "Adam is best")(work)
    assert table.rows[2][2:] == ("-", "-")


def test_results_are_read_back(tmp_path):
    table = Table("a", ["b", "c"], [[1, 2.5]], ["d"], folded=True)
    picture = plan.Picture("figures/x.png", "y")
    for one in (table, picture):
        assert runner._from_json(json.loads(json.dumps(runner._as_json(one)))) == one
    assert "2.5" in as_text([table], folded=True)
