"""The library: a run opened without its data, and a training, as a notebook calls them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import LEAST, process_env, untrained

import anigan_jax
from anigan_jax import api, parent
from anigan_jax.cli import main
from anigan_jax.cli import train as cli_train
from anigan_jax.errors import UserError
from anigan_jax.sampling import grids
from anigan_jax.storage import images as record
from anigan_jax.storage import manifest, safetensors


@pytest.fixture(scope="module")
def noise(trained, tmp_path_factory):
    return trained("FULL").copy(tmp_path_factory.mktemp("api") / "run").run


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("averaged") / "run", "FULL")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("text") / "run", "TEXT")


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("cycle") / "run", "CYCLE")


def test_a_run_opens_without_data_cache_or_place(noise, tmp_path, monkeypatch):
    """The first images do not depend on how many are asked for."""
    moved = tmp_path / "elsewhere" / "friend"
    shutil.copytree(noise, moved)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cold"))
    monkeypatch.chdir(tmp_path)
    run = anigan_jax.load("elsewhere/friend")
    images = run.generate(5, seed=3)
    assert (images.shape, images.dtype) == ((5, 16, 16, 3), np.uint8)
    assert (run.generate(2, seed=3) == images[:2]).all()
    assert (run.generate(2, seed=4) != images[:2]).any()
    assert run.step == 8
    assert set(run.params) == {"g", "d", "ema"}
    # No pack was made.
    assert not (tmp_path / "cold" / "anigan_jax" / "packs").exists()


def test_weights_alone_are_enough(noise, tmp_path):
    alone = tmp_path / "weights.safetensors"
    shutil.copyfile(noise / safetensors.WEIGHTS, alone)
    whole = anigan_jax.load(noise).generate(2)
    for path in (alone, tmp_path):
        assert (anigan_jax.load(path).generate(2) == whole).all()
    with pytest.raises(UserError, match=r"not a run directory.*no checkpoints"):
        anigan_jax.load(tmp_path, checkpoint=8)


def test_a_checkpoint_by_name_or_step(noise):
    run = anigan_jax.load(noise, checkpoint="latest")
    assert (run.generate(2) == anigan_jax.load(noise).generate(2)).all()
    early = anigan_jax.load(noise, checkpoint=4)
    assert early.step == 4
    assert (early.generate(2) != run.generate(2)).any()
    for wanted, named in (
        (5, "no checkpoint of step 5; it has"),
        ("best", "no best"),
        ("x", "'x'"),
    ):
        with pytest.raises(UserError, match=named):
            anigan_jax.load(noise, checkpoint=wanted)


def test_the_weights_of_the_generator_are_chosen(averaged):
    run, raw = (anigan_jax.load(averaged, weights=weights) for weights in (None, "raw"))
    shown, trained = run.generate(2), raw.generate(2)
    assert (shown != trained).any()
    assert (anigan_jax.load(averaged, "latest", weights="ema").generate(2) == shown).all()
    assert (run.generate(2, weights="raw") == trained).all()
    assert (raw.generate(2, weights="ema") == shown).all()
    assert (raw.at("latest").generate(2) == trained).all()
    params, stats = run.state.params["g"], run.state.stats["g"]
    z = grids.latents(run.method, 2, 0)
    assert (record.to_uint8(run.method.generate(params, stats, z)) == trained).all()
    with pytest.raises(UserError, match="'raw' or 'ema'"):
        anigan_jax.load(averaged, weights="average")


@pytest.mark.long
def test_verbs_choose_the_weights_too(verb, averaged, tmp_path):
    """Both pictures are kept apart; without an average there is none to draw with."""
    places = []
    for words in ((), ("--weights", "ema"), ("--weights", "raw")):
        code, out, error = verb("sample", averaged, "--n", "2", *words)
        assert code == 0, error
        places.append(Path(out.strip()))
    assert [path.stem.endswith("_raw") for path in places] == [False, False, True]
    assert places[0].read_bytes() != places[2].read_bytes()
    bare = untrained(tmp_path / "bare", "PLAIN", "--ema-half-life", "0")
    for words in (("sample",), ("interpolate",)):
        code, _, error = verb(*words, bare, "--weights", "ema")
        assert (code, error.count("\n")) == (2, 1)
        assert "no averaged weights" in error
    assert verb("sample", bare, "--n", "2", "--weights", "raw")[0] == 0


def test_prompts_and_translations(text, cycle):
    run = anigan_jax.load(text)
    blue = run.generate(3, seed=1, prompt="blue hair red eyes")
    assert blue.shape == (3, 16, 16, 3)
    assert (blue != run.generate(3, seed=1, prompt="red hair blue eyes")).any()
    assert run.generate(2).shape == (2, 16, 16, 3)
    with pytest.raises(UserError, match="Known classes: hair"):
        run.generate(1, prompt="purple polka dots")
    # One for each image: as the text of each, beside the latents that it would have alone.
    asked = ["blue hair red eyes", "red hair blue eyes", "blue hair red eyes"]
    each = run.generate(prompt=asked, seeds=[4, 4, 9])
    z, texts = run.latents([4, 4, 9]), run.texts(asked)
    assert (each == run.generate(prompt=asked, latents=z)).all()
    for i in range(3):
        apply, own = run.generator()
        alone = record.to_uint8(apply(own, z[i:][:1], texts[i:][:1]))[0]
        assert np.abs(each[i].astype(int) - alone).max() <= 1
    assert (each[0] != each[1]).any() and (each[0] != each[2]).any()
    assert run.generate(prompt=asked, seed=1).shape == (3, 16, 16, 3)
    for wrong in ({"n": 2}, {"seeds": [1]}, {"latents": z[:2]}, {"n": 3, "seeds": [4, 4, 9]}):
        with pytest.raises(UserError, match="one"):
            run.generate(prompt=asked, **wrong)
    with pytest.raises(UserError, match="0 texts"):
        run.generate(prompt=[])
    way = anigan_jax.load(cycle)
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    there = way.translate(photos)
    assert (there.shape, there.dtype) == ((2, 32, 32, 3), np.uint8)
    assert (way.translate(photos, "ba") != there).any()
    for wrong in (photos[0], photos.astype(float), photos[..., :1]):
        with pytest.raises(UserError, match=r"uint8 \(n, S, S, 3\)"):
            way.translate(wrong)
    with pytest.raises(UserError, match="translates photos"):
        way.generate(1)
    with pytest.raises(UserError, match="prompts need a text GAN"):
        way.generate(1, prompt="blue hair red eyes")


def test_latents_of_ones_own(averaged, text):
    """Those of seeds give the images of the seeds; with a prompt too."""
    run = anigan_jax.load(averaged)
    z = run.latents([3, 7])
    assert (z.shape, z.dtype) == ((2, run.method.z_dim), np.float32)
    assert (run.generate(latents=z) == run.generate(seeds=[3, 7])).all()
    assert (run.generate(latents=z[1:]) == run.generate(seeds=[7])).all()
    assert (run.generate(latents=z, truncation=0.1) != run.generate(latents=z)).any()
    words = anigan_jax.load(text)
    z = words.latents(range(3))
    asked = words.generate(latents=z, prompt="blue hair red eyes")
    assert (asked == words.generate(seeds=range(3), prompt="blue hair red eyes")).all()
    assert words.generate(latents=z).shape == asked.shape
    for wrong in (z[0], z[:, :2], z * np.nan, z[:0], "x", [[1], [1, 2]]):
        with pytest.raises(UserError, match="latents are"):
            words.generate(latents=wrong)
    for more in ({"n": 2}, {"seeds": [1]}):
        with pytest.raises(UserError, match="leave out n"):
            words.generate(latents=z, **more)
    with pytest.raises(UserError, match="latents are"):
        run.generate(latents=np.zeros((2, 99)))


@pytest.mark.parametrize("weights", [None, "ema", "raw"])
def test_the_generator_is_a_pure_function_of_its_weights(averaged, weights):
    """With the statistics that belong to them, jitted and differentiated."""
    run = anigan_jax.load(averaged)
    apply, own = run.generator(weights=weights)
    z = run.latents(range(4))
    images = jax.jit(apply)(own, z)
    assert images.shape == (4, 16, 16, 3)
    want = run.generate(latents=z, weights=weights)
    assert np.abs(record.to_uint8(images).astype(int) - want).max() <= 1
    slope = jax.grad(lambda z: apply(own, z).sum())(z)
    assert slope.shape == z.shape and float(np.abs(slope).max()) > 0
    if weights == "raw":
        assert own[0] is not run.generator()[1][0]


def test_the_generator_of_a_translation_has_a_direction(cycle):
    run = anigan_jax.load(cycle)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    for way in ("ab", "ba"):
        apply, own = run.generator(way)
        made = record.to_uint8(apply(own, images / 127.5 - 1))
        assert np.abs(made.astype(int) - run.translate(images, way)).max() <= 1
    with pytest.raises(UserError, match="translates photos"):
        run.generator()


def test_prompts_become_what_the_generator_reads():
    run = anigan_jax.load("painted/words")
    apply, own = run.generator()
    asked = ("blue hair red eyes", "green hair")
    texts = np.concatenate([run.texts([prompt], seed=3) for prompt in asked])
    made = record.to_uint8(apply(own, run.latents([3, 3]), texts))
    want = np.concatenate([run.generate(1, seed=3, prompt=prompt) for prompt in asked])
    assert np.abs(made.astype(int) - want).max() <= 1
    assert (run.texts(asked[:1] * 2) == run.texts(asked[:1])).all()
    for wrong, told in (("blue hair", "list"), (["blue cats"], "blue cats")):
        with pytest.raises(UserError, match=told):
            run.texts(wrong)
    with pytest.raises(UserError, match="without texts"):
        anigan_jax.load("painted/noise").texts(["blue hair"])


def test_a_run_is_scored_in_python_as_by_the_verb(averaged, verb):
    run = anigan_jax.load(averaged, "latest")
    found = run.evaluate(40, judges=("random",), seed=1)
    code, out, err = verb(
        "evaluate", averaged, "--judge", "random", "--n", 40, "--seed", 1, "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    for key in ("step", "protocols", "averaged"):
        assert found[key] == told[key]
    assert found["sets"]["generated"]["scores"] == told["sets"]["generated"]["scores"]


def test_a_config_with_flags():
    config = anigan_jax.load_config("anime_faces", "--size", "96", "--data.path", "FACES.zip")
    assert (config.data.size, config.method.generator.size, config.data.path) == (
        96,
        96,
        "FACES.zip",
    )
    with pytest.raises(UserError, match="no config"):
        anigan_jax.load_config("anime_facess")
    with pytest.raises(UserError, match="batch_size is 0"):
        anigan_jax.load_config("anime_faces", "--batch-size", "0")
    with pytest.raises(UserError, match="two words; pass them separately: '--data"):
        anigan_jax.load_config("anime_faces", "--data.path A B.zip")
    with pytest.raises(UserError, match="run anigan train anime_faces --help"):
        anigan_jax.load_config("anime_faces", "--batch-sise", "8")
    spaced = anigan_jax.load_config("anime_faces", "--data.path=A B.zip")
    assert spaced.data.path == "A B.zip"


def test_the_home_directory_is_written_to_as_it_is_read(tmp_path, monkeypatch):
    """Also where a shell leaves it as it is: `--workdir=~/x`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    assert anigan_jax.pack(pixels, "~/pack") == tmp_path / "pack"
    assert anigan_jax.load("painted/noise").save("~/weights") == tmp_path / "weights"
    seen = []
    monkeypatch.setattr(api, "start", lambda config, workdir, *_: seen.append(workdir) or 1)
    with pytest.raises(KeyboardInterrupt):
        anigan_jax.train(anigan_jax.load_config("quickstart"), "~/x")
    assert seen == [tmp_path / "x"]
    assert parent.place("~/x@best") == (tmp_path / "x", "best")
    assert parent.place("~/x@best".replace("~", "~no-such-user"))[1] == "best"
    words = ["quickstart", "--workdir=~/x", "--resume", "~/y"]
    given = main._arguments(cli_train.train, words, "anigan train")
    assert (given["workdir"], given["resume"]) == (tmp_path / "x", tmp_path / "y")
    assert not (tmp_path / "~").exists()


HANDS_ON = [
    ("evaluate", "averaged", ("--judge", "random")),
    ("probe", "averaged", ()),
    ("history", "averaged", ()),
    ("edit", "averaged", ()),
    ("table", "text", ()),
    ("translate", "cycle", (__file__,)),
]


@pytest.mark.parametrize(("name", "kind", "more"), HANDS_ON)
def test_each_verb_hands_the_weights_on(name, kind, more, verb, request, monkeypatch):
    asked = []

    def load(path, *rest, weights=None, **options):
        asked.append(weights)
        raise UserError("seen")

    monkeypatch.setattr(api, "load", load)
    assert verb(name, request.getfixturevalue(kind), *more, "--weights", "raw")[0] == 2
    assert asked == ["raw"]


def test_what_cannot_be_opened_raises(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        anigan_jax.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a run directory"):
        anigan_jax.load(tmp_path)
    (tmp_path / "run.json").write_text("[1")
    with pytest.raises(UserError, match="damaged"):
        anigan_jax.load(tmp_path)


def test_names_are_looked_up_when_used():
    assert anigan_jax.load is api.load
    assert all(hasattr(anigan_jax, name) for name in anigan_jax.__all__)
    assert {*anigan_jax.__all__} <= {*dir(anigan_jax)}
    # Its modules need no import of their own.
    alone = "import anigan_jax as a; a.config_file.find('quickstart'); a.losses; a.parent.Parent"
    subprocess.run([sys.executable, "-c", alone], check=True, env=process_env())
    with pytest.raises(AttributeError, match="nothing"):
        _ = anigan_jax.nothing


NOTEBOOK = """
import jax.numpy as jnp
print(jnp.ones(3).sum())
import anigan_jax
from anigan_jax.config import Run
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Discriminator, Generator
from dataclasses import dataclass
print("begun")
@dataclass(frozen=True)
class Typed(GAN):
    "One of this script alone."
    more: float = 0.5
narrow = {"size": 16, "base_channels": 4}
method = Typed(Generator(z_dim=4, **narrow), Discriminator(**narrow))
data = PaintedFaces(count=600, size=16)
config = anigan_jax.Config("mine", method, data, batch_size=8, run=Run(steps=4, devices=1))
run = anigan_jax.train(config, "run")
assert run.step == 4 and run.config == config, run.config
assert run.generate(2).shape == (2, 16, 16, 3)
again = anigan_jax.train(config, "run")
assert (again.generate(2) == run.generate(2)).all()
try:
    anigan_jax.train(anigan_jax.Config("mine", method, data, batch_size=0), "bad")
except anigan_jax.UserError as error:
    print("refused:", error)
"""


@pytest.mark.long
def test_a_training_as_a_notebook_runs_it(tmp_path):
    """JAX was used before, there is no `__main__` guard, and the images are packed by workers."""
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    env = {**process_env(), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env["JAX_COMPILATION_CACHE_DIR"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "refused: batch_size is 0" in done.stdout
    # What was trained is given back, not opened by executing the script's kept copy.
    assert done.stdout.count("begun") == 1
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    # It says what it ran: the settings themselves, and not a file's.
    assert recorded["config"]["method"]["generator"]["base_channels"] == 4
    assert recorded["command"] == []
    assert not (tmp_path / "bad").exists()


def test_a_training_in_a_thread_stops_when_it_is_asked(tmp_path):
    """No interrupt arrives there; what it saves goes on as after any stop."""
    run, stop, ended = tmp_path / "run", anigan_jax.Stop(), []
    config = dataclasses.replace(LEAST, run=dataclasses.replace(LEAST.run, steps=100_000))

    def work():
        ended.append(anigan_jax.train(config, run, stop=stop))

    thread = threading.Thread(target=work)
    thread.start()
    lines = run / "metrics.jsonl"
    while thread.is_alive() and not (lines.exists() and lines.read_text().count("\n") > 3):
        time.sleep(0.05)
    stop.ask()
    stop.ask()
    thread.join(120)
    assert not thread.is_alive()
    at = max(manifest.steps(run / "checkpoints"))
    assert 0 < at < 100_000
    assert (ended[0].generate(2) == anigan_jax.load(run).generate(2)).all()
