"""`anigan log`: a run's scalars and pictures in other records, each once."""

import importlib.machinery
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_dirs import judged

from anigan_jax.errors import UserError
from anigan_jax.report import collect, record, sinks
from anigan_jax.report.record import Sink
from anigan_jax.storage import lock, metrics_file, run_dir


@pytest.fixture
def run(trained, tmp_path):
    """A copy to write into, with scores."""
    return judged(trained("FULL").copy(tmp_path / "run").run)


def listed(points=None) -> tuple[Sink, list]:
    """A sink that lists (step, name) of all that it is given."""
    got = [] if points is None else points

    def write(step, scalars, pictures):
        got.extend((step, name) for name in (*scalars, *pictures))

    return Sink("a list", {}, write, lambda: None, lambda: None), got


def points(folder):
    """(tag, step) of all events of a folder, and its reader."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    found = [(tag, event.step) for tag in tags["scalars"] for event in events.Scalars(tag)]
    found += [(tag, event.step) for tag in tags["images"] for event in events.Images(tag)]
    return found, events


def test_event_files(run, tmp_path, verb):
    folder = tmp_path / "events"
    words = ("log", run, "--to", "tensorboard", "--out", folder)
    code, said, error = verb(*words)
    assert code == 0, error
    assert f"tensorboard --logdir {folder}" in said
    found, events = points(folder)
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    for key in ("loss/g", "images_per_sec", "accuracy/d"):
        values = events.Scalars(key)
        assert [event.step for event in values] == list(range(1, 9))
        np.testing.assert_allclose([e.value for e in values], [m[key] for m in lines[1:]], 1e-6)
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("evaluation/coverage-vgg16")] == [
        (4, 0.5)
    ]
    assert set(events.Tags()["images"]) == {"samples", "ema"}
    image = events.Images("samples")[-1]
    (tmp_path / "x.png").write_bytes(image.encoded_image_string)
    assert image.step == 8
    with (
        Image.open(tmp_path / "x.png") as got,
        Image.open(run / "previews/samples/step_000000008.png") as want,
    ):
        np.testing.assert_array_equal(np.asarray(got.convert("RGB")), np.asarray(want))
    # Again: nothing is there twice. A kill that cut off a record loses nothing either.
    assert "0 values and 0 pictures, up to step 8" in verb(*words)[1]
    assert sorted(points(folder)[0]) == sorted(found)
    largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-30_000])
    assert len(points(folder)[0]) < len(found)
    assert verb(*words)[0] == 0
    assert sorted(points(folder)[0]) == sorted(found)
    assert len(set(found)) == len(found)


def test_the_default_place_is_the_run(run, verb):
    assert verb("log", run, "--to", "tensorboard")[0] == 0
    assert list((run / "log/tensorboard").glob("events.out.tfevents.*"))
    before = collect.collect(run, "run")["outputs"].keys()
    assert "log" not in before


def test_another_run_at_the_same_place_is_another_record(run):
    """So are not the same settings in another length."""
    first = sinks.place_of("wandb", run).identity
    recorded = run_dir.read_run(run)
    recorded["config"]["run"]["steps"] += 1
    (run / "run.json").write_text(json.dumps(recorded))
    assert sinks.place_of("wandb", run).identity == first
    recorded["config_sha256"] = "0" * 64
    (run / "run.json").write_text(json.dumps(recorded))
    assert sinks.place_of("wandb", run).identity != first


def test_a_log_follows_a_training_to_its_end(run, monkeypatch):
    """Whose lines are cut off, whose scores come late, and which was stopped in between."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    scores = (run / "evaluation.jsonl").read_text().splitlines(keepends=True)
    previews = shutil.copytree(run / "previews", run / "all")
    shutil.rmtree(run / "previews")
    metrics, judged = run / "metrics.jsonl", run / "evaluation.jsonl"
    metrics.write_text("".join(lines[:3]) + lines[3][:20])
    judged.unlink()
    held, clock, stages = lock.hold(run), [0.0], []

    def resumed():
        # From step 2: a new file, with the lines after it dropped.
        again = run / "again"
        again.write_text("".join(lines[:3]))
        again.replace(metrics)

    def stage(seconds):
        nonlocal held
        stages.append(seconds)
        clock[0] += seconds
        match len(stages):
            case 1:
                metrics.write_text("".join(lines[:5]))
            case 2:
                judged.write_text(scores[0])
                shutil.copytree(previews, run / "previews")
            case 3:
                held.close()
            case 4:
                resumed()
                held = lock.hold(run)
            case 5:
                metrics.write_text("".join(lines))
            case 6:
                judged.write_text("".join(scores))
                held.close()

    monkeypatch.setattr(record.time, "sleep", stage)
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])
    sink, got = listed()
    told = record.log(run, sink, follow=True)
    assert (len(stages), told.step) == (6, 8)
    assert len(got) == len(set(got)) == told.scalars + told.pictures
    whole, want = listed()
    record.log(run, whole)
    assert set(got) == set(want)
    assert (4, "evaluation/kid-vgg16") in got
    assert (8, "samples") in got


def test_a_log_does_not_wait_for_what_nobody_trains(run, monkeypatch):
    recorded = json.loads((run / "run.json").read_text())
    recorded["config"]["run"]["steps"] = 100
    (run / "run.json").write_text(json.dumps(recorded))
    clock = [0.0]
    monkeypatch.setattr(record.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(record.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    assert record.log(run, listed()[0], follow=True).step == 8
    assert record.GRACE < clock[0] < record.GRACE + 2 * record.PERIOD


def test_looking_whether_a_run_is_trained_disturbs_nobody(run):
    assert not lock.held(run)
    assert not lock.held(run / "nowhere")
    with lock.hold(run):
        assert lock.held(run)
        with pytest.raises(UserError, match="another process"):
            lock.hold(run)
    assert not lock.held(run)


def test_bad_input(run, verb, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "events.out.tfevents.1.host").write_bytes(b"")
    (tmp_path / "file").touch()
    for words, said in (
        ((tmp_path, "--to", "tensorboard"), "not a run directory"),
        ((run, "--to", "comet"), "tensorboard"),
        ((run, "--to", "tensorboard", "--out", other), "event files of something else"),
        ((run, "--to", "tensorboard", "--out", tmp_path / "file" / "x"), "cannot be written"),
    ):
        code, out, error = verb("log", *words)
        assert (code, out) == (2, ""), error
        assert said in error
    with lock.hold(run / "log/tensorboard"):
        code, _, error = verb("log", run, "--to", "tensorboard")
        assert code == 2
        assert "another process is logging in" in error
    shutil.rmtree(run / "log")
    for name, extra in (("tensorboardX", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, name, None)
        code, _, error = verb("log", run, "--to", extra)
        assert (code, error.count("\n")) == (2, 1)
        assert f"anigan_jax[{extra}]" in error
    assert not (run / "log").exists()
    # Its former spelling.
    code, _, error = verb("report", run, "--tensorboard", "tb")
    assert (code, error.count("\n")) == (2, 1)
    assert f"anigan log {run} --to tensorboard --out tb" in error
    with pytest.raises(UserError, match="given twice"):
        collect.labels([run, run])


class Kept:
    """Stand-ins for the clients of other records, as far as they are used: tried with wandb 0.31,
    mlflow 3.17 and trackio 0.43. `rows` are (record, step, names)."""

    def __init__(self):
        self.rows = []

    def module(self, monkeypatch, name, **attributes):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    def of(self, record):
        return [
            (step, name) for where, step, names in self.rows for name in names if where == record
        ]


@pytest.fixture
def kept(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Kept()


def wanted(run):
    got = listed()
    record.log(run, got[0])
    return sorted(got[1])


def test_wandb_is_offline_and_written_anew(run, kept, verb, tmp_path, monkeypatch):
    given = []

    def init(**words):
        given.append(words)
        place = tmp_path / "wandb" / f"offline-run-{len(given)}-{words['id']}" / "files"
        place.mkdir(parents=True)

        def log(line):
            kept.rows.append((len(given), line.pop("step"), list(line)))

        return types.SimpleNamespace(
            define_metric=lambda *a, **k: None, log=log, finish=lambda: None, dir=str(place)
        )

    kept.module(monkeypatch, "wandb", init=init, Image=str, Settings=dict)
    for _ in range(2):
        code, out, error = verb("log", run, "--to", "wandb", "--out", tmp_path, "--project", "x")
        assert code == 0, error
    assert "wandb sync " in out
    assert (given[0]["mode"], given[0]["project"], given[0]["name"]) == ("offline", "x", "run")
    assert given[0]["id"] == given[1]["id"]
    assert given[0]["config"]["batch_size"] == "8"
    # The second start replaced the first.
    assert [path.name[:13] for path in (tmp_path / "wandb").iterdir()] == ["offline-run-2"]
    assert sorted(kept.of(2)) == wanted(run)


def test_trackio_is_written_anew(run, kept, verb, tmp_path, monkeypatch):
    there = []

    def init(project, name, **words):
        there.append(types.SimpleNamespace(name=name, delete=kept.rows.clear))

        def log(line, step):
            kept.rows.append((name, step, list(line)))

        return types.SimpleNamespace(log=log, finish=lambda: None)

    def runs(project):
        if not there:
            raise ValueError(f"Project {project!r} does not exist")
        return there

    api = types.SimpleNamespace(runs=runs)
    kept.module(monkeypatch, "trackio", init=init, Api=lambda: api, Image=str)
    for _ in range(2):
        code, out, error = verb("log", run, "--to", "trackio", "--out", tmp_path)
        assert code == 0, error
    assert f"TRACKIO_DIR={tmp_path} trackio show --project tiny" in out
    assert sorted(kept.of(there[0].name)) == wanted(run)


def test_mlflow_is_asked_what_it_has(run, kept, verb, tmp_path, monkeypatch):
    """A kill between two values of a step leaves neither out."""
    pictures, made = [], []

    class Client:
        def __init__(self, tracking_uri):
            assert tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"

        def get_experiment_by_name(self, name):
            return types.SimpleNamespace(experiment_id="1") if made else None

        def create_experiment(self, name, artifact_location):
            return "1"

        def search_runs(self, experiments, text):
            data = types.SimpleNamespace(metrics={n for _, n in kept.of("metric")})
            info = types.SimpleNamespace(run_id="r")
            return [types.SimpleNamespace(info=info, data=data)] if made else []

        def create_run(self, experiment, tags, run_name):
            made.append(tags)
            return self.search_runs([], "")[0]

        def log_batch(self, number, metrics=(), params=()):
            kept.rows.extend(("metric", one.step, [one.name]) for one in metrics)

        def get_metric_history(self, number, name):
            found = [step for step, other in kept.of("metric") if other == name]
            return [types.SimpleNamespace(step=step) for step in found]

        def list_artifacts(self, number, folder):
            names = {p for p, _ in pictures} if folder == "previews" else set()
            names |= {f"{folder}/{name}" for p, name in pictures if p == folder}
            return [types.SimpleNamespace(path=name) for name in names]

        def log_artifact(self, number, path, folder):
            pictures.append((folder, Path(path).name))

        def update_run(self, number, status): ...

        def set_terminated(self, number): ...

    def metric(name, value, now, step):
        return types.SimpleNamespace(name=name, step=step)

    kept.module(monkeypatch, "mlflow")
    kept.module(monkeypatch, "mlflow.entities", Metric=metric, Param=lambda *a: a)
    kept.module(monkeypatch, "mlflow.tracking", MlflowClient=Client)
    words = ("log", run, "--to", "mlflow", "--out", tmp_path)
    assert verb(*words)[0] == 0
    whole = sorted(kept.of("metric"))
    del kept.rows[-3:], pictures[-1]
    code, out, error = verb(*words)
    assert code == 0, error
    assert "3 values and 1 pictures" in out
    assert sorted(kept.of("metric")) == whole
    shown = [(int(name[5:14]), folder.split("/")[1]) for folder, name in pictures]
    assert sorted(whole + shown) == wanted(run)


def test_what_a_client_refuses_is_one_sentence(run, kept, verb, monkeypatch):
    def init(**words):
        raise RuntimeError("no such entity\nat line 3")

    kept.module(monkeypatch, "wandb", init=init, Settings=dict)
    code, _, error = verb("log", run, "--to", "wandb", "--out", run / "x")
    assert (code, error) == (2, "error: --to wandb: no such entity\n")


@pytest.mark.parametrize("at", ["log", "finish"])
def test_so_is_what_it_refuses_later(run, kept, verb, monkeypatch, at):
    class Client:
        url, dir = "", str(run / "x/wandb/files")

        def define_metric(self, *words, **more):
            pass

        def log(self, values):
            if at == "log":
                raise RuntimeError("over the quota\nat line 3")

        def finish(self):
            if at == "finish":
                raise RuntimeError("over the quota")

    images = {"Image": str, "Settings": lambda **_: None}
    kept.module(monkeypatch, "wandb", init=lambda **_: Client(), **images)
    code, _, error = verb("log", run, "--to", "wandb", "--out", run / "x")
    assert (code, error) == (2, "error: --to wandb: over the quota; the same command continues\n")
