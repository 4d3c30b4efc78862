"""The command line on good and bad input; in processes where that is what is tested."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import NAMES, anigan, process_env


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """(config file, a run to write into, what its training printed)."""
    return trained("FULL").copy(tmp_path_factory.mktemp("cli") / "run")


def test_a_run_folder_holds_what_it_should(run):
    _, folder, told = run
    for name in (
        "run.json",
        "config.py",
        "metrics.jsonl",
        "real.png",
        "curves/losses.png",
        "curves/scores.png",
        "samples/step_000000004.png",
        "ema/step_000000008.png",
        "checkpoints/step_000000008/manifest.json",
    ):
        assert (folder / name).is_file(), name
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(9))
    wanted = {"loss/g", "loss/d", "score/real", "score/fake", "accuracy/d", "images_per_sec"}
    assert wanted <= lines[-1].keys()
    assert lines[-1]["images_seen"] == 64
    assert all(0 <= line["score/real"] <= 1 for line in lines[1:])
    recorded = json.loads((folder / "run.json").read_text())
    assert recorded["facts"]["NPROC"] == "2"
    assert recorded["facts"]["jaxlib"]
    for part in ("ema", "real images", "checkpoint", "anigan sample"):
        assert part in told


def test_pictures_have_the_right_size_and_content(run):
    _, folder, _ = run
    grid = np.asarray(Image.open(folder / "samples/step_000000008.png"))
    assert grid.shape == (8 * 18 + 2, 8 * 18 + 2, 3)
    assert grid[2:18, 2:18].std() > 0
    first = np.asarray(Image.open(folder / "samples/step_000000004.png"))
    assert (first != grid).any()


def test_sample_interpolate_and_kernels(run, verb):
    _, folder, _ = run
    code, out, err = verb("sample", folder, "--n", 5, "--seed", 3)
    assert code == 0, err
    picture = Image.open(out.strip())
    assert picture.size == (3 * 18 + 2, 2 * 18 + 2)
    first = picture.tobytes()
    done = anigan("sample", folder, "--n", 5, "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert Image.open(done.stdout.strip()).tobytes() == first
    code, out, err = verb("interpolate", folder, "--frames", 12, "--stops", 3)
    assert code == 0, err
    gif, sheet = out.split()
    assert Image.open(gif).n_frames == 12
    assert Image.open(sheet).size == (10 * 18 + 2, 3 * 18 + 2)
    code, out, err = verb("kernels", folder)
    assert code == 0, err
    assert Image.open(out.strip()).size == (2 * 44 + 4, 2 * 44 + 4)


def test_training_again_has_nothing_to_do_and_changes_nothing(run):
    config, folder, _ = run
    before = (folder / "metrics.jsonl").read_bytes()
    done = anigan("train", config, "--workdir", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_describe_and_its_json(verb):
    text = anigan("describe", "csc412_keras_dcgan").stdout
    assert "2,734,531" in text
    assert "1,086,273" in text
    table = json.loads(verb("describe", "csc412_keras_dcgan", "--json")[1])
    assert table["networks"]["generator"]["statistics"] == 960


def test_a_dry_run_writes_nothing(run, tmp_path):
    done = anigan("train", run[0], "--workdir", tmp_path / "none", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "8 steps" in done.stdout
    assert not (tmp_path / "none").exists()


BAD = {
    "verb": (["trian"], "trian"),
    "config": (["train", "ucsd_sn_dcgam", "--workdir", "x"], "ucsd_sn_dcgan"),
    "field": (["train", "quickstart", "--workdir", "x", "--run.stepz", "3"], "steps"),
    "value": (["train", "quickstart", "--workdir", "x", "--run.steps", "many"], "many"),
    "choice": (["train", "quickstart", "--workdir", "x", "--method.loss", "hing"], "hinge"),
    "negative": (["train", "quickstart", "--workdir", "x", "--batch-size", "-4"], "batch_size"),
    "rate": (
        ["train", "quickstart", "--workdir", "x", "--optimizers.g.learning-rate", "nan"],
        "g.rate",
    ),
    "workdir": (["train", "quickstart"], "--workdir"),
    "devices": (
        ["train", "quickstart", "--workdir", "x", "--run.devices", "3"],
        "32 is not a multiple of 3",
    ),
    "data": (["train", "ref_dcgan64", "--workdir", "x", "--data.path", "no.zip"], "no.zip"),
    "too few": (
        ["train", "quickstart", "--workdir", "x", "--data.count", "8"],
        "a batch of 32",
    ),
    "size": (
        ["train", "quickstart", "--workdir", "x", "--method.generator.size", "48"],
        "size",
    ),
    "no run": (["sample", "nowhere"], "nowhere"),
    "count": (["sample", "nowhere", "--n", "0"], "--n"),
    "nothing": ([], "usage"),
}


@pytest.mark.fault(21)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_message_and_exit_code_2(name, tmp_path, monkeypatch, verb):
    arguments, named = BAD[name]
    monkeypatch.chdir(tmp_path)
    code, out, err = verb(*arguments)
    assert code == 2, out + err
    assert named in out + err
    assert "Traceback" not in err
    assert not (tmp_path / "x" / "run.json").exists()


def test_bad_input_of_a_process():
    done = anigan("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and "trian" in done.stderr


def test_a_folder_of_another_run_is_refused_and_kept(run, verb):
    config, folder, _ = run
    before = (folder / "run.json").read_bytes()
    rate = "--optimizers.g.learning-rate"
    code, _, err = verb("train", config, "--workdir", folder, rate, "0.1")
    assert code == 2
    assert "g.learning_rate" in err
    assert (folder / "run.json").read_bytes() == before


def test_a_folder_of_something_else_is_refused_and_kept(run, tmp_path, verb):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert verb("train", run[0], "--workdir", tmp_path)[0] == 2
    assert [p.name for p in tmp_path.iterdir() if p.name != "lock"] == ["thesis.txt"]


def test_a_second_process_in_a_run_folder_is_refused(run):
    import fcntl

    config, folder, _ = run
    with (folder / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = anigan("train", config, "--workdir", folder)
    assert done.returncode == 2
    assert "another process" in done.stderr


HELP = """
import sys
from anigan_jax.cli import main as cli
for arguments in (["--help"], ["train", "quickstart", "--help"], ["describe", "--help"]):
    try:
        cli.main(arguments)
    except SystemExit as stop:
        assert stop.code == 0
assert "jax" not in sys.modules, "jax was imported"
"""


def test_help_does_not_start_jax():
    done = subprocess.run(
        [sys.executable, "-c", HELP], env=process_env(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage") == 3


def test_help_lists_every_field_with_type_and_default(verb):
    text = verb("train", "quickstart", "--help")[1]
    for part in (
        "--batch-size",
        "--method.generator.z-dim",
        "--optimizers.g.learning-rate",
        "--ema-half-life",
        "INT",
    ):
        assert part in text


@pytest.mark.parametrize("name", NAMES)
def test_every_config_describes(name, verb):
    code, out, err = verb("describe", name)
    assert code == 0, err
    assert "trained" in out
