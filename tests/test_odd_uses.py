"""Verbs and calls used as nobody had thought of: refused in words, and nothing is lost."""

import dataclasses
import errno
import shutil
import signal
import threading
from typing import Any

import numpy as np
import pytest
from tiny import LEAST, PLAIN, untrained, write_config

import anigan_jax
from anigan_jax import config as configs
from anigan_jax import errors, own_code, storage
from anigan_jax.errors import UserError
from anigan_jax.runtime import signals
from anigan_jax.storage import atomic


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("runs") / "plain", "PLAIN")


def test_what_lies_beside_an_output_stays(tmp_path):
    """Hidden names are the user's: .git beside an output called git."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("mine")
    with atomic.new_folder(tmp_path / "git") as folder:
        (folder / "x").write_text("ours")
    (tmp_path / ".zz.json").write_text("mine")
    atomic.save_text("ours", tmp_path / "zz.json")
    assert (tmp_path / ".git" / "HEAD").read_text() == "mine"
    assert (tmp_path / ".zz.json").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {".git", "git", ".zz.json", "zz.json"}


def test_what_a_kill_left_of_an_output_is_written_over(tmp_path):
    left = atomic.partial(tmp_path / "x")
    left.mkdir()
    (left / "old").write_text("half")
    with atomic.new_folder(tmp_path / "x") as folder:
        (folder / "new").write_text("whole")
    assert [p.name for p in tmp_path.rglob("*")] == ["x", "new"]


def test_a_player_without_an_optimizer_leaves_no_run(tmp_path):
    config = dataclasses.replace(LEAST, optimizers={"g": LEAST.optimizers["g"]})
    with pytest.raises(UserError, match=r"no entry for 'd'; the method's players are d, g$"):
        anigan_jax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("trained", [False, True])
def test_only_a_run_with_a_checkpoint_is_offered_as_a_source(tmp_path, verb, trained):
    run = untrained(tmp_path / "run", "PLAIN")
    if not trained:
        shutil.rmtree(run / "checkpoints")
    code, _, err = verb(
        "train", write_config(tmp_path, "PLAIN"), "--workdir", run, "--batch-size", 4
    )
    assert code == 2 and "batch_size: 8 -> 4" in err
    assert ("--init-from" in err) == trained
    assert ("delete" in err) != trained


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("seed", 2**32, "seed is 4294967296; it must be below 2**32"),
        ("optimizers.g.gamma", -0.5, "gamma is -0.5; it must be at least 0"),
        ("optimizers.g.boundaries", (-1,), "each must be at least 0"),
        ("optimizers.d.decay_steps", -1, "decay_steps is -1"),
        ("method.generator.z_dim", 0, "method.generator.z_dim is 0; it must be at least 1"),
        ("method.discriminator.base_channels", -4, "base_channels is -4"),
        ("method.generator.self_modulation", -3, "self_modulation is -3; it must be at least 0"),
        ("method.discriminator.dropout", 1.0, "dropout is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_numbers_that_no_run_can_have_are_refused_before_one_begins(path, value, told, tmp_path):
    def changed(settings, names):
        if isinstance(settings, dict):
            return {**settings, names[0]: changed(settings[names[0]], names[1:])}
        inner = changed(getattr(settings, names[0]), names[1:]) if names[1:] else value
        return dataclasses.replace(settings, **{names[0]: inner})

    configs.check(PLAIN)
    with pytest.raises(UserError) as error:
        anigan_jax.train(changed(PLAIN, path.split(".")), tmp_path / "run")
    assert told in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_setting_may_be_declared_as_anything():
    @dataclasses.dataclass(frozen=True)
    class Free:
        value: Any = None

    from anigan_jax import declared

    for value in (1, "x", None, (1, 2)):
        assert not [*declared.type_faults("method", Free(value))]


def test_out_of_memory_is_not_answered_with_the_same_command(tmp_path):
    full = errors.machine_fault(OSError(errno.ENOSPC, "full", str(tmp_path / "x")), tmp_path)
    assert f"the same command resumes {tmp_path}" in full
    memory = errors.machine_fault(MemoryError("of the host"), tmp_path)
    assert "the same command" not in memory
    assert "--run.devices" in memory and f"--init-from {tmp_path}" in memory


def test_a_disk_that_is_full_is_named_by_every_verb(run, verb, monkeypatch):
    """Also where a verb does not expect it: exit code 4, no traceback."""

    def full(*args, **rest):
        raise OSError(errno.ENOSPC, "No space left on device", "out.png")

    monkeypatch.setattr(storage.images, "save_image", full)
    code, _, err = verb("sample", run, "--n", "1", "--out", run.parent / "x.png")
    assert code in (2, 4) and "No space left" in err and "Traceback" not in err
    monkeypatch.setattr("anigan_jax.cli.train.api.start", full)
    code, _, err = verb("train", write_config(run.parent, "PLAIN"), "--workdir", run.parent / "y")
    assert code == 4 and "out.png cannot be written" in err


def test_an_output_that_cannot_be_written_comes_with_the_flag_that_moves_it(run, verb, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = verb("sample", run, "--n", "1", "--out", tmp_path / "file" / "x.png")
    assert code == 2 and "use another --out" in err


@pytest.mark.parametrize("name", ["sample", "report", "checkpoints", "evaluate", "log"])
def test_what_lies_in_a_run_names_the_run(run, verb, name):
    more = ("--to", "tensorboard") if name == "log" else ()
    (step,) = (run / "checkpoints").glob("step_*")
    for path, said in (
        (step, f"give {run} --checkpoint {int(step.name[5:])}"),
        (run / "checkpoints", f"give {run}"),
    ):
        code, _, err = verb(name, path, *more)
        assert code == 2 and "not a run directory" in err and said in " ".join(err.split())


def test_a_run_that_is_packed_is_to_be_unpacked(run, verb, tmp_path):
    packed = shutil.make_archive(str(tmp_path / "run"), "zip", run)
    code, _, err = verb("sample", packed)
    assert code == 2 and "unpack it" in err


def test_a_run_in_the_place_of_real_images_names_its_images(run, verb, tmp_path):
    code, _, err = verb("evaluate", tmp_path, "--against", run)
    assert code == 2 and f"{run} is a run; give the real images" in " ".join(err.split())


@dataclasses.dataclass(frozen=True)
class Listed:
    names: list[str] = dataclasses.field(default_factory=list)
    plain: list = dataclasses.field(default_factory=list)
    pair: tuple[int, ...] = (1, 2)


def test_lists_are_refused_before_a_run_has_them():
    """JSON gives them back as tuples, so the run could not be resumed."""
    from anigan_jax import declared

    found = list(declared.type_faults("method", Listed()))
    assert [told.split()[0] for told in found] == ["method.names", "method.plain"]
    assert all("tuple" in told for told in found)


@dataclasses.dataclass(frozen=True)
class Holding(type(PLAIN.method.generator)):
    table: object = None


def test_what_json_cannot_hold_is_refused():
    """An array in a setting: it could be neither recorded nor compared."""
    mine = Holding(z_dim=4, size=16, base_channels=4, table=np.zeros(3))
    method = dataclasses.replace(PLAIN.method, generator=mine)
    with pytest.raises(UserError, match=r"JSON.*ndarray"):
        configs.check(dataclasses.replace(PLAIN, method=method))


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("sample", LONG),
        ("describe", LONG),
        ("train", "--resume", LONG),
        ("export", "painted/noise", "--to", "weights", "--out", LONG),
        ("evaluate", LONG),
        ("kernels", "painted/noise"),
        ("compile", "quickstart", "--for", "cpu", "--batch-size", "-1"),
        ("bench", "quickstart", "--picture", "x.foo"),
        ("bench", "quickstart", "--batch", "8", "--run.devices", "-2"),
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_mistakes_end_with_2_and_a_sentence(verb, words):
    code, _, err = verb(*words)
    assert code == 2
    assert err.startswith("error: ") and len(err) < 1500


def test_a_path_below_a_file_is_told(tmp_path, run, verb):
    (run / "out").mkdir(exist_ok=True)
    for name in ("history", "kernels"):
        (run / "out" / name).write_text("a file")
        code, _, err = verb(name, run)
        assert code == 2 and str(run / "out" / name) in err
        (run / "out" / name).unlink()


@pytest.mark.parametrize(
    "words", [("--checkpoint", "²"), ("--checkpoint", "first")], ids=["superscript", "word"]
)
def test_a_checkpoint_that_is_no_number(run, verb, words):
    code, _, err = verb("sample", run, *words)
    assert code == 2 and "neither 'best', 'latest' nor a step" in err


def test_a_replay_of_a_run_that_recorded_nothing(run, verb):
    text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else None
    (run / "metrics.jsonl").write_text("")
    code, _, err = verb("replay", run)
    assert code == 2 and "has recorded no step yet" in err
    (run / "metrics.jsonl").unlink() if text is None else (run / "metrics.jsonl").write_text(text)


def test_a_replay_of_less_than_nothing(run, verb):
    code, _, err = verb("replay", run, "--until", "-1")
    assert code == 2 and "--until" in err


def test_a_dry_run_refuses_what_the_run_would(tmp_path, verb):
    config = write_config(tmp_path, "LEAST")
    judged = ("--run.evaluate-every", 4, "--run.eval-network", "random")
    words = ("train", config, "--workdir", tmp_path / "run", "--dry-run", *judged)
    code, _, err = verb(*words, "--run.eval-second", "nope")
    assert code == 2 and "nope" in err
    code, _, err = verb(*words[:5], "--run.steps", 10**20)
    assert code == 2 and "2**31" in err


@pytest.mark.parametrize("words", [("help",), ("help", "help"), ("help", "--help"), ("--help",)])
def test_help_for_help(verb, words):
    code, out, _ = verb(*words)
    assert code == 0 and out.startswith("usage: anigan VERB")


def test_a_config_in_another_encoding_keeps_its_code(tmp_path):
    text = (
        "# -*- coding: latin-1 -*-\n# caf\xe9\nimport neighbor\nfrom tiny import LEAST as CONFIG\n"
    )
    (tmp_path / "mine.py").write_bytes(text.encode("latin-1"))
    (tmp_path / "neighbor.py").write_text("")
    mine, tops = tmp_path / "mine.py", {tmp_path: {"mine"}}
    assert [p.name for p, _ in own_code._imported(mine, tmp_path, tops)] == ["neighbor.py"]


def test_signals_are_left_alone_in_a_thread():
    before, found = signal.getsignal(signal.SIGINT), []

    def work():
        with signals.caught() as stop:
            found.append((stop.number, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(0, before)]


@pytest.mark.parametrize(
    "words",
    [
        {"n": 2.0},
        {"n": "2"},
        {"n": True},
        {"n": 2, "seed": "1"},
        {"n": 2, "seed": -1},
        {"n": 2, "seed": 2**32},
        {"n": 2, "seed": 1.5},
        {"seeds": 5},
        {"seeds": "0-3"},
        {"n": 2, "truncation": "a"},
        {"n": 2, "prompt": ["blue hair"]},
    ],
    ids=str,
)
def test_generate_says_what_it_takes(words):
    model = anigan_jax.load("painted/words")
    with pytest.raises(UserError, match=next(reversed(words))):
        model.generate(**words)


def test_numbers_of_numpy_are_numbers():
    model = anigan_jax.load("painted/noise")
    one = model.generate(np.int64(1), seed=np.uint32(3))
    assert np.array_equal(one, model.generate(seeds=np.array([3])))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 0, 0, 3), (1, 64, 32, 3), (1, 63, 63, 3)])
def test_translate_says_what_it_takes(shape):
    with pytest.raises(UserError, match="images"):
        anigan_jax.load("painted/photos").translate(np.zeros(shape, np.uint8))


def test_translate_refuses_images_of_several_sizes():
    images = [np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)]
    with pytest.raises(UserError, match="several sizes"):
        anigan_jax.load("painted/photos").translate(images)


def test_train_takes_a_config_not_its_name(tmp_path):
    with pytest.raises(UserError, match="load_config"):
        anigan_jax.train("quickstart", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_without_build_is_named():
    from anigan_jax.networks.blocks import GeneratorSettings

    class Mine(GeneratorSettings):
        pass

    with pytest.raises(UserError, match="Mine"):
        Mine().build()


def test_models_that_come_along_start_a_run(tmp_path, verb, monkeypatch):
    """Also where verbs have left a folder of that name."""
    monkeypatch.chdir(tmp_path)
    words = ("train", "quickstart", "--workdir", "run", "--dry-run", "--data.count", 64)
    for _ in range(2):
        code, out, err = verb(*words, "--init-from", "painted/noise", "--init-players", "g")
        assert code == 0, err
        assert "starts from G, the average of noise.safetensors" in out
        (tmp_path / "painted" / "noise" / "out").mkdir(parents=True, exist_ok=True)
