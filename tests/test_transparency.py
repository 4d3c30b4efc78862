"""RGBA in, RGBA out: transparent images through data, training, pictures, judges and files."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sources import write
from tiny import CYCLE, IMAGES, LEAST, TEXT, arrays, run_steps, start, untrained

import anigan_jax
from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.cli import common
from anigan_jax.data import alpha, dataset
from anigan_jax.data.decode import Crop, decode
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.evaluation import features
from anigan_jax.methods import augment, augment_pipe
from anigan_jax.storage import images as record

SIDE = 8


def sprite(seed: int, side: int = SIDE) -> np.ndarray:
    """A disc with a soft rim on nothing, under which a file hides green."""
    draw = np.random.default_rng(seed)
    at = np.arange(side) - (side - 1) / 2
    near = np.clip(side / 2 - np.hypot(at[:, None], at) - draw.uniform(0, 1), 0, 1)
    pixels = np.empty((side, side, 4), np.uint8)
    pixels[..., :3] = np.where(near[..., None] > 0, draw.integers(0, 256, 3), (0, 255, 0))
    pixels[..., 3] = np.rint(255 * near)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    contents = {f"{i:02}.png": png(sprite(i)) for i in range(30)}
    return write(tmp_path_factory.mktemp("sprites"), contents)


@pytest.fixture(scope="module")
def run(tmp_path_factory, folder):
    """A GAN of such images as a start leaves it; one setting was given."""
    words = ["--data.path", folder, "--data.transparency", "keep"]
    folder = tmp_path_factory.mktemp("runs") / "run"
    return untrained(folder, "SPRITES", *words)


# --- from files to networks and back


def test_decoding_keeps_alpha_and_no_hidden_color():
    got = decode(png(sprite(1)), Crop(SIDE, alpha=True))
    assert got.pixels.shape == (SIDE, SIDE, 4)
    assert not got.notes
    shown = sprite(1)[..., 3] > 0
    assert (got.pixels[shown] == sprite(1)[shown]).all()
    assert not got.pixels[~shown].any()
    # Made smaller, the hidden green does not bleed into the rim.
    color = sprite(2, 32)[16, 16, :3].astype(int)
    small = decode(png(sprite(2, 32)), Crop(SIDE, alpha=True)).pixels
    rim = (small[..., 3] > 60) & (small[..., 3] < 250)
    assert rim.any()
    assert np.abs(small[rim][:, :3].astype(int) - color).max() <= 4
    padded = decode(png(sprite(3, 32)[8:24]), Crop(SIDE, "pad", alpha=True)).pixels
    assert not padded[0].any()
    assert padded[SIDE // 2, SIDE // 2, 3] == 255
    opaque = decode(png(np.full((SIDE, SIDE, 3), 7, np.uint8)), Crop(SIDE, alpha=True)).pixels
    assert (opaque == (7, 7, 7, 255)).all()
    assert (decode(png(sprite(1)), Crop(SIDE)).pixels[0, 0] == 255).all()


def test_networks_see_colors_times_alpha_and_files_get_them_back():
    pixels = np.stack([alpha.without_hidden(sprite(i)) for i in range(3)])
    floats = np.asarray(jax.jit(augment.signed)(pixels))
    assert floats.dtype == np.float32
    want = pixels / 255
    want[..., :3] *= want[..., 3:]
    np.testing.assert_allclose(floats, 2 * want - 1, atol=1e-6)
    assert (record.to_uint8(floats) == pixels).all()
    # What a generator makes beyond its alpha is white at most.
    wild = record.to_uint8(np.array([1.0, 0.0, -1.0, -0.5]))
    assert wild.tolist() == [255, 255, 0, 64]
    assert record.to_uint8(np.array([1.0, 1.0, 1.0, -1.0])).tolist() == [0, 0, 0, 0]


def test_over_a_background():
    pixels = np.array([[255, 0, 0, 255], [255, 0, 0, 51], [9, 9, 9, 0]], np.uint8)
    assert alpha.over(pixels, 0).tolist() == [[255, 0, 0], [51, 0, 0], [0, 0, 0]]
    assert alpha.over(pixels, 255).tolist() == [[255, 0, 0], [255, 204, 204], [255, 255, 255]]
    rgb = pixels[:, :3]
    assert alpha.over(rgb, 0) is rgb
    sheet = np.asarray(record.grid(np.zeros((1, 16, 16, 4), np.uint8), pad=0))
    assert sheet.shape == (16, 16, 3)
    assert {sheet[0, 0, 0], sheet[0, 8, 0]} == {255, 204}


@pytest.mark.long
def test_colors_are_augmented_and_alpha_is_not():
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.uniform(jax.random.key(1), (4, 8, 8, 4), minval=-1)
    for changed in (
        augment.diff_augment(x, keys, ("color",)),
        augment_pipe.augment(x, keys, augment_pipe.COLOR, 1.0),
    ):
        assert (changed[..., 3] == x[..., 3]).all()
        assert (changed[..., :3] != x[..., :3]).any((1, 2, 3)).all()
    # As of the colors alone.
    alone = augment.diff_augment(x[..., :3], keys, ("color",))
    assert (augment.diff_augment(x, keys, ("color",))[..., :3] == alone).all()
    moved = augment.diff_augment(x, keys, ("translation", "cutout"))
    assert moved.shape == x.shape


def test_twins_are_told_by_what_shows(tmp_path):
    """White and black pictures on nothing differ; two that hide other colors are the same."""
    hidden, other = sprite(4), sprite(4)
    other[other[..., 3] == 0] = (1, 2, 3, 0)
    white, black = np.zeros((2, SIDE, SIDE, 4), np.uint8)
    white[2:6, 2:6], black[2:6, 2:6] = 255, (0, 0, 0, 255)
    named = {"a.png": hidden, "b.png": other, "c.png": white, "d.png": black}
    path = write(tmp_path / "in", {name: png(pixels) for name, pixels in named.items()})
    source = Images(path, size=SIDE, test=0, transparency="keep")
    pack = dataset.build(source, tmp_path / "cache", workers=1)
    assert pack.images.shape == (4, SIDE, SIDE, 4)
    assert pack.examples()["groups"] == [0, 0, 2, 3]


# --- settings


def test_one_flag_sets_data_and_networks(folder):
    own = dataclasses.replace(IMAGES, data=Images(path=folder, size=IMAGES.method.size))
    for words in (["--data.transparency", "keep"], ["--data.transparency=keep"]):
        config = common.overridden(own, words, "")
        configs.check(config)
        assert config.data.channels == config.method.channels == 4
        assert config.method.discriminator.channels == 4
    # Without it nothing is said of channels: runs and packs from before stay what they are.
    assert not [name for name in configs.identity(own) if name.endswith(".channels")]
    assert "transparency" not in Images(path=folder).key()
    assert Images(path=folder).key() != Images(path=folder, transparency="keep").key()


def test_who_takes_no_transparency_says_so(tmp_path, folder, verb):
    data = Images(path=folder, path_b=folder, size=CYCLE.method.size, transparency="keep")
    with pytest.raises(UserError, match="GANs from noise or words"):
        configs.check(dataclasses.replace(CYCLE, data=data))
    half = dataclasses.replace(LEAST.method.generator, channels=4)
    with pytest.raises(UserError, match=r"generator.channels 4 differs from discriminator"):
        dataclasses.replace(LEAST.method, generator=half).make()
    with pytest.raises(UserError, match="CartoonGAN"):
        Images(path=folder, edges=True, transparency="keep").check()
    keep = ("--transparency", "keep", "--size", SIDE)
    code, _, err = verb("import", folder, "--out", tmp_path / "x", "--landmarks", *keep)
    assert code == 2
    assert "CartoonGAN" in err
    assert verb("import", folder, "--out", tmp_path / "pack", *keep)[0] == 0
    with pytest.raises(UserError, match="4 channels, but data"):
        dataset.build(Images(path=str(tmp_path / "pack"), size=SIDE), tmp_path)


# --- a run


@pytest.mark.parametrize("config", [LEAST, TEXT], ids=["noise", "words"])
@pytest.mark.long
def test_it_trains(config, folder, tmp_path):
    size = config.method.size
    tags = write(tmp_path, {"tags.csv": "".join(
        f"{i:02},{'blue' if i % 2 else 'red'} hair {'green' if i % 3 else 'red'} eyes\n"
        for i in range(30))})  # fmt: skip
    data = Images(folder, size=size, test=0, transparency="keep", tags=f"{tags}/tags.csv")
    config = dataclasses.replace(config, data=data)
    words = [
        w for w in config_file.sized(config, ["--data.transparency", "keep"]) if "channels" in w
    ]
    config = common.overridden(config, words, "")
    pack = dataset.build(config.data, tmp_path / "cache", workers=1)
    _, state = start(config, pack)
    state, lines = run_steps(config, arrays(config, pack), state, 2)
    assert np.isfinite(lines["loss/d"]).all()
    assert np.isfinite(lines["loss/g"]).all()


@pytest.mark.long
def test_pictures_of_a_run(run, verb):
    trained = anigan_jax.load(run)
    images = trained.generate(3, seed=1)
    assert images.shape == (3, SIDE, SIDE, 4)
    assert len(np.unique(images[..., 3])) > 2
    assert verb("sample", run, "--seeds", "0-2", "--out", run / "faces", "--scale", 2)[0] == 0
    with Image.open(run / "faces" / "0001.png") as image:
        assert (image.mode, image.size) == ("RGBA", (2 * SIDE, 2 * SIDE))
    assert verb("sample", run, "--n", 4, "--out", run / "sheet.png")[0] == 0
    with Image.open(run / "sheet.png") as image:
        assert image.mode == "RGB"
    for words in (("interpolate", run, "--frames", 5, "--stops", 2), ("kernels", run)):
        assert verb(*words)[0] == 0, words


def test_it_is_judged_on_black_and_on_white(run, verb):
    code, out, _ = verb("evaluate", run, "--n", 40, "--judge", "random", "--json")
    assert code == 0
    report = json.loads(out)
    found = report["sets"]["generated"]["scores"]
    assert {"kid-random-on-black", "kid-random-on-white"} <= found.keys()
    black, white = (found[f"kid-random-on-{name}"]["generated"] for name in alpha.BACKGROUNDS)
    assert black != white
    assert report["protocols"]["random-on-white"]["background"] == "white"
    # A network sees what shows on its background, and refuses RGBA without one.
    network = features.random()
    pixels = np.stack([sprite(i) for i in range(4)])
    both = features.on_backgrounds([network], 4)
    for one, level in zip(both, (0, 255), strict=True):
        want = features.of_images(network, alpha.over(pixels, level))
        assert (features.of_images(one, pixels) == want).all()
    assert features.on_backgrounds([network], 3) == [network]
    with pytest.raises(ValueError, match="uint8"):
        features.of_images(network, pixels)


def test_files_of_a_run(run, verb, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    code, _, err = verb("export", run, "--to", "onnx", "--out", tmp_path / "out")
    assert code == 0, err
    (file,) = (tmp_path / "out").rglob("*.onnx")
    z = jnp.zeros((2, LEAST.method.generator.z_dim))
    (made,) = runtime.InferenceSession(file.read_bytes()).run(None, {"z": np.asarray(z)})
    assert made.shape == (2, 4, SIDE, SIDE)
    code, _, err = verb("demo", run, "--out", tmp_path / "page.html")
    assert code == 2
    assert "only opaque images" in err


def test_frames_of_a_walk_stay_transparent(run, verb, tmp_path):
    words = ("interpolate", run, "--frames", 3, "--stops", 2, "--out", tmp_path / "frames")
    code, _, err = verb(*words)
    assert code == 0, err
    shapes = {np.asarray(Image.open(p)).shape for p in (tmp_path / "frames").iterdir()}
    assert shapes == {(SIDE, SIDE, 4)}
