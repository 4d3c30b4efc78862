"""Epochs beside steps: in metrics, tables, reports, lists and histories."""

import json

import numpy as np
import pytest
from PIL import Image
from run_dirs import Page
from tiny import untrained

from anigan_jax import api
from anigan_jax.errors import UserError
from anigan_jax.report import by_epoch, curves
from anigan_jax.runtime.progress import Progress
from anigan_jax.sampling import grids, history
from anigan_jax.storage import epochs, metrics_file
from anigan_jax.storage.epochs import Epochs


@pytest.fixture
def run(trained, tmp_path):
    """8 steps of 8 of 44 images, to write into; 5 steps are an epoch."""
    return trained("FULL").copy(tmp_path / "run").run


@pytest.fixture
def logged(tmp_path):
    """A run of 12 steps, 4 in an epoch, of which only the files about its numbers are there."""

    def write(keep=0):
        (tmp_path / "run.json").write_text(
            json.dumps({"config": {"batch_size": 2, "run": {"keep_every": keep}}})
        )
        names = [f"trainA/{i}" for i in range(9)] + [f"trainB/{i}" for i in range(20)]
        (tmp_path / "data.json").write_text(json.dumps(dict.fromkeys(names, "")))
        lines = [{"step": 0, "fingerprint": "00"}]
        for step in range(1, 13):
            values = {"loss/d": float(step), "score/real": 0.5, "gradient/g": 1.0}
            # Where G is not updated, it has no loss.
            lines.append({"step": step, "loss/g": None if step % 2 else 10.0 * step, **values})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "metrics.jsonl").write_text(text)
        return tmp_path

    return write


def test_steps_as_epochs(logged, tmp_path):
    found = epochs.of_run(logged())
    assert found == Epochs(9, 2)
    assert (found.steps, found.at(9)) == (4, 2.25)
    assert [found.label(step) for step in (0, 1, 4, 8)] == [
        "epoch 0",
        "epoch 0.25",
        "epoch 1",
        "epoch 2",
    ]
    # 15 whole batches of 1,000 images leave 40 out: epochs never run backwards for that.
    few = Epochs(1000, 64)
    shown = [float(few.label(step).removeprefix("epoch ")) for step in range(400)]
    assert shown == sorted(shown)
    assert shown == [round(few.at(step), 2) for step in range(400)]
    assert epochs.named(1004, found) == "step 1,004 (epoch 251)"
    assert epochs.named(1004, None) == "step 1,004"
    for damaged in ("{}", "[]", "x"):
        (tmp_path / "run.json").write_text(damaged)
        assert epochs.of_run(tmp_path) is None


def test_each_metrics_line_has_its_epoch(run):
    lines = metrics_file.read_metrics(run / "metrics.jsonl")[1:]
    assert [line["epoch"] for line in lines] == [step / 5 for step in range(1, 9)]


def test_means_by_epoch(logged):
    run = logged()
    found = by_epoch.epoch_means(run, [1, 3])
    names = {"loss/g": 30.0, "loss/d": 2.5, "score/real": 0.5}
    assert found["epochs"][0] == {"epoch": 1, "step": 4, **names}
    assert list(found["epochs"][0])[2:] == list(names)
    assert found["epochs"][1]["loss/d"] == pytest.approx(10.5)
    assert [one["epoch"] for one in by_epoch.epoch_means(run)["epochs"]] == [1]
    assert [one["epoch"] for one in by_epoch.epoch_means(logged("2,3 epochs"))["epochs"]] == [2, 3]
    table = by_epoch.epoch_table(run, [2])
    assert table.columns == ("epoch", "last step", "loss of G", "loss of D", "real score")
    assert table.rows == (("2", "8", "70", "6.5", "0.5"),)
    with pytest.raises(UserError, match="completed 3 epochs; epoch 0, 4 is not there"):
        by_epoch.epoch_means(run, [0, 2, 4])
    (run / "data.json").unlink()
    with pytest.raises(UserError, match="no epochs"):
        by_epoch.epoch_table(run)


def test_a_run_before_its_first_epoch_says_so(run, verb):
    path = run / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    code, out, _ = verb("epochs", run)
    assert (code, out) == (0, f"{run} has completed 0 epochs: one is 5 steps\n")
    assert json.loads(verb("epochs", run, "--json")[1])["epochs"] == []


def test_the_verb_and_the_page_have_the_table(run, verb):
    code, out, err = verb("epochs", run)
    assert code == 0, err
    assert "| epoch | last step |" in out
    found = json.loads(verb("epochs", run, "--at", "1", "--json")[1])
    lines = metrics_file.read_metrics(run / "metrics.jsonl")[1:6]
    assert found["epochs"][0]["loss/d"] == pytest.approx(np.mean([m["loss/d"] for m in lines]))
    for bad in ("1,x", "0", "2"):
        assert verb("epochs", run, "--at", bad)[0] == 2
    assert verb("report", run, "--no-draw")[0] == 0
    page = Page(run / "report.html")
    assert "Means over each epoch" in page.text
    assert "step 8 (epoch 1.60)" in page.text
    assert page.data["runs"][0]["epochs"] == {"images": 44, "batch_size": 8}
    assert "epoch" not in page.data["runs"][0]["curves"]["series"]
    # A run that does not say what it learned from is shown without.
    (run / "data.json").unlink()
    assert verb("report", run, "--no-draw")[0] == 0
    assert "(epoch" not in Page(run / "report.html").text


def test_checkpoints_are_listed_with_their_epochs(run, verb):
    out = verb("checkpoints", run)[1]
    assert "epoch 0.80" in out and "epoch 1.60" in out
    found = json.loads(verb("checkpoints", run, "--json")[1])
    assert [one["epoch"] for one in found["checkpoints"]] == [0.8, 1.6]


def test_pruning_keeps_epochs(run, verb):
    about = json.loads((run / "run.json").read_text())
    about["config"]["run"]["keep_every"] = "1 epochs"
    (run / "run.json").write_text(json.dumps(about))
    (run / "checkpoints/step_000000004").rename(run / "checkpoints/step_000000005")
    assert verb("checkpoints", run, "--prune", 1)[0] == 0
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["step_000000005", "step_000000008"]
    (run / "data.json").unlink()
    code, _, err = verb("checkpoints", run, "--prune", 1)
    assert code == 2
    assert "none is deleted" in err


def test_curves_and_progress_show_epochs(tmp_path, capsys):
    lines = [{"step": i, "loss/g": 1.0 + i, "loss/d": 2.0} for i in range(1, 5)]
    plain = [np.asarray(Image.open(path)) for path in curves.curves(lines, tmp_path)]
    lines = [{**line, "epoch": line["step"] / 10} for line in lines]
    both = [np.asarray(Image.open(path)) for path in curves.curves(lines, tmp_path)]
    assert not np.array_equal(plain[0], both[0])
    Progress(4, 0).update(4, lines[-1])
    assert "step 4/4  epoch 0.40  loss/g 5" in capsys.readouterr().err


@pytest.mark.long
def test_the_same_latents_at_each_checkpoint(run, verb):
    code, out, err = verb("history", run, "--n", 3)
    assert code == 0, err
    page = np.asarray(Image.open(out.strip()))
    trained = api.load(run, 4)
    rows = history.of_latents(trained.model, 3, 0)
    models = [trained.at(step).model for step in (4, 8)]
    np.testing.assert_array_equal(page, np.asarray(history.page(models, rows, run)))
    z = grids.latents(trained.method, 3, 0)
    np.testing.assert_array_equal(rows.draw(models[1]), grids.generated(models[1], z))
    assert history.pick_steps(run, 10, 7) == [4]
    assert verb("history", run, "--checkpoint", 4)[1].strip().endswith("step_000000004_seed_0.png")
    for words, told in (
        (["--epochs", "1"], "no checkpoint of epoch 1; it has epoch 0.80, epoch 1.60"),
        (["--epochs", "one"], "not a list of epochs"),
        (["--prompt", "red hair"], "without texts"),
        ([run / "real.png"], "cannot translate"),
    ):
        code, _, err = verb("history", run, *words)
        assert code == 2
        assert told in err


@pytest.mark.long
def test_photos_over_the_training(tmp_path, verb):
    run = untrained(tmp_path / "there", "CYCLE")
    code, out, err = verb("history", run, "--n", 2)
    assert code == 0, err
    # Two held-out photos beside what they become.
    first = Image.open(out.split()[-1])
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 30), "red").save(photo)
    code, out, err = verb("history", run, photo, "--direction", "ba")
    assert code == 0, err
    assert Image.open(out.split()[-1]).width == first.width
    assert Image.open(out.split()[-1]).height < first.height
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert verb("history", run, photo, tmp_path / "bad.png")[0] == 1


@pytest.mark.long
def test_texts_of_the_data_over_the_training(tmp_path, verb):
    run = untrained(tmp_path / "there", "TEXT")
    code, out, err = verb("history", run, "--n", 2)
    assert code == 0, err
    several = verb("history", run, "--prompt", "red hair", "--prompt", "blue eyes", "--n", 2)
    assert Image.open(several[1].split()[-1]).height > Image.open(out.split()[-1]).height
