"""Inception-v3 of FID against torch-fidelity's, and its weights from files good and bad."""

import os
import pickle
import sys

import jax
import numpy as np
import pytest
from foreign import Payload, save_torch, zipped
from oracles.fidelity import torch_fidelity

from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert, inception, store
from anigan_jax.perceptual.inception import AVERAGE, BLOCKS, MAX, SIDE, Conv
from anigan_jax.storage import safetensors

block = jax.jit(inception.block, static_argnums=2)
FIRST = "Conv2d_1a_3x3"


def states() -> dict[str, np.ndarray]:
    """Random weights under PyTorch's names, with which activations neither die nor explode."""
    rng, found = np.random.default_rng(0), {}
    for name, shape in inception.shapes().items():
        place, leaf = name.rsplit("/", 1)
        if leaf == "bias":
            continue
        theirs, width = place.removeprefix("stem/").replace("/", "."), shape[3]
        shape = (width, shape[2], *shape[:2])
        # Some variances are no larger than batch norm's epsilon.
        deviation = np.where(rng.random(width) < 0.05, 0.03, rng.uniform(0.7, 1.4, width))
        scale = np.float32(deviation * (2 / np.prod(shape[1:])) ** 0.5)[:, None, None, None]
        found |= {
            f"{theirs}.conv.weight": rng.standard_normal(shape, np.float32) * scale,
            f"{theirs}.bn.weight": rng.uniform(0.7, 1.3, width).astype(np.float32),
            f"{theirs}.bn.bias": rng.normal(0, 0.2, width).astype(np.float32),
            f"{theirs}.bn.running_mean": (deviation * rng.normal(0, 0.3, width)).astype(np.float32),
            f"{theirs}.bn.running_var": (deviation**2).astype(np.float32),
            f"{theirs}.bn.num_batches_tracked": np.array(0),
        }
    head = {"fc.weight": np.zeros((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}
    return found | head


def checked(state: dict) -> dict[str, np.ndarray]:
    return convert.check("inception", convert.rename(state, "x"), "x")


@pytest.fixture(scope="module")
def state():
    return states()


@pytest.fixture(scope="module")
def flat(state):
    return checked(state)


@pytest.fixture(scope="module")
def source(state, tmp_path_factory):
    """A file as pytorch-fid's, its checksum in its name."""
    path = save_torch(tmp_path_factory.mktemp("inception") / "x.pth", state)
    digest = store.verify_sha256(path)
    return path.rename(path.with_name(f"pt_inception-2015-12-05-{digest[:8]}.pth"))


@pytest.fixture(scope="module")
def theirs(source):
    """torch-fidelity's network; it takes these names and shapes and no others."""
    module = torch_fidelity("feature_extractor_inceptionv3")
    return module.FeatureExtractorInceptionV3("inception-v3", ["2048"], str(source))


@pytest.fixture
def only_stem(monkeypatch):
    """A network of the first layers alone: small files."""
    monkeypatch.setattr(inception, "BLOCKS", {"stem": BLOCKS["stem"]})
    return states()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def worst(mine, theirs) -> float:
    """Largest deviation, over the largest value."""
    mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    return np.abs(mine - theirs).max() / np.abs(theirs).max()


@pytest.mark.long
def test_pool3_equals_torch_fidelity(theirs, flat):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)
    pixels[1] //= 3
    (want,) = theirs(torch.tensor(pixels.transpose(0, 3, 1, 2)))
    signed = (np.float32(pixels) - 128) / 128
    got = np.asarray(jax.jit(inception.features)(safetensors.unflatten(flat), signed))
    assert got.shape == (2, 2048) and got.dtype == np.float32
    assert worst(got, want) < 1e-5
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    # They are alive, and of their image.
    assert 0.05 < got.mean() < 20 and (got > 1e-3).mean() > 0.7
    assert worst(got[0], got[1]) > 0.1


@pytest.mark.parametrize(
    "name", ["Mixed_5b", "Mixed_6a", "Mixed_6b", "Mixed_7a", "Mixed_7b", "Mixed_7c"]
)
def test_blocks_equal_torch_fidelitys(theirs, flat, name):
    torch = pytest.importorskip("torch")
    params = safetensors.unflatten(flat)[name]
    # A branch may begin with a pooling, but not the first.
    channels = params[BLOCKS[name][0][0].name]["kernel"].shape[2]
    # Of both signs, so that a padding which counts as a value is seen by the largest, too.
    x = np.random.default_rng(2).normal(-1, 1, (2, 9, 8, channels)).astype(np.float32)
    want = getattr(theirs, name)(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    got = block(params, x, BLOCKS[name])
    assert got.shape == want.transpose(0, 2, 3, 1).shape
    assert worst(got, want.transpose(0, 2, 3, 1)) < 1e-5


def test_padding_does_not_count():
    identity = {"a": {"kernel": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)}}
    flat_map = np.ones((1, 5, 4, 1), np.float32)
    averaged = block(identity, flat_map, ((AVERAGE, Conv("a", 1)),))
    np.testing.assert_allclose(averaged, flat_map, rtol=1e-6)
    np.testing.assert_array_equal(block(identity, -flat_map, ((MAX,),)), -flat_map)
    # A bright corner: seen by four windows of four, six, six and nine pixels.
    corner = np.zeros((1, 5, 4, 1), np.float32)
    corner[0, 0, 0] = 36
    averaged = block(identity, corner, ((AVERAGE, Conv("a", 1)),))[0, :3, :3, 0]
    np.testing.assert_allclose(averaged, [[9, 6, 0], [6, 4, 0], [0, 0, 0]], rtol=1e-6)
    largest = block(identity, corner, ((MAX, Conv("a", 1)),))[0, :3, :3, 0]
    np.testing.assert_array_equal(largest, [[36, 36, 0], [36, 36, 0], [0, 0, 0]])


def test_other_images_and_parameters_are_refused(flat):
    params = safetensors.unflatten(flat)
    for shape in ((1, 298, 299, 3), (1, 299, 299, 1), (299, 299, 3), (1, 3, 299, 299)):
        with pytest.raises(ValueError, match=r"must be \(B, 299, 299, 3\)"):
            inception.features(params, np.zeros(shape, np.float32))
    x = np.zeros((1, SIDE, SIDE, 3), np.float32)
    without = {name: value for name, value in flat.items() if name != "Mixed_6e/branch1x1/bias"}
    with pytest.raises(ValueError, match="see Mixed_6e/branch1x1/bias"):
        inception.features(safetensors.unflatten(without), x)
    with pytest.raises(ValueError, match="see Mixed_6e/branch1x1/bias"):
        bent = without | {"Mixed_6e/branch1x1/bias": np.zeros(191)}
        inception.features(safetensors.unflatten(bent), x)


def test_batch_norm_is_folded_in(state, flat):
    for name, place in ((FIRST, f"stem/{FIRST}"), ("Mixed_7c.branch3x3_2a",) * 2):
        place = place.replace(".", "/")
        gamma, beta, mean, variance = (
            np.float64(state[f"{name}.bn.{leaf}"])
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + 0.001)
        kernel = np.moveaxis(np.float64(state[f"{name}.conv.weight"]), (0, 1), (3, 2)) * scale
        np.testing.assert_allclose(flat[f"{place}/kernel"], kernel, rtol=1e-7)
        np.testing.assert_allclose(flat[f"{place}/bias"], beta - mean * scale, rtol=1e-6)
    assert convert.BATCH_NORM_EPSILON == 0.001
    assert sum(value.size for value in flat.values()) == 21_768_352
    assert len(flat) == 2 * 94


@pytest.mark.long
def test_every_source_gives_the_same(verb, source, flat, tmp_path):
    want = store.content_sha256(flat)
    code, out, _ = verb("weights", "inception", "--from", source)
    assert code == 0 and want in out
    # Random numbers under the published name's pattern.
    assert f"Inception-v3, from {source.name}, which is not the published file" in out
    found = convert.load("inception")
    assert all(np.array_equal(found[name], flat[name]) for name in flat)
    path = store.locate("inception")
    about = safetensors.metadata(path)
    assert about["source_sha256"].startswith(source.stem[-8:]) and about["published"] is False
    code, out, _ = verb("weights")
    assert code == 0 and want in out and "vgg16      missing" in out
    # Ours once more, at another place.
    _, again = convert.convert("inception", str(path), tmp_path / "again.safetensors")
    assert again["content_sha256"] == want


@pytest.mark.parametrize("kind", ["zip", "stream", "safetensors"])
def test_formats(only_stem, tmp_path, kind):
    path = tmp_path / f"x.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        safetensors.write(only_stem | {"AuxLogits.fc.bias": np.zeros(2)}, path)
    else:
        save_torch(path, only_stem, _use_new_zipfile_serialization=kind == "zip")
    _, about = convert.convert("inception", str(path))
    direct = checked(only_stem)
    assert about["content_sha256"] == store.content_sha256(direct)
    found = convert.load("inception")
    assert all(np.array_equal(found[name], direct[name]) for name in direct)


def test_the_published_file_is_recognized(only_stem, tmp_path, monkeypatch, verb):
    path = save_torch(tmp_path / "x.pth", only_stem)
    published = convert.NETWORKS["inception"]._replace(published=store.verify_sha256(path))
    monkeypatch.setitem(convert.NETWORKS, "inception", published)
    code, out, _ = verb("weights", "inception", "--from", path)
    assert code == 0 and "not the published file" not in out
    assert safetensors.metadata(store.locate("inception"))["published"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {f"{FIRST}.bn.bias": None},
            f"hold all of Inception-v3: {FIRST}.bn.bias is missing",
        ),
        (
            {f"{FIRST}.conv.weight": np.zeros((32, 3, 1, 3), np.float32)},
            f"{FIRST}.conv.weight is float32 (32, 3, 1, 3); Inception-v3 has floats (32, 3, 3, 3)",
        ),
        ({f"{FIRST}.bn.weight": np.zeros(32, int)}, f"{FIRST}.bn.weight is int64 (32,)"),
        ({f"{FIRST}.bn.running_mean": np.full(32, np.nan, "f4")}, "numbers that are not finite"),
        ({f"{FIRST}.bn.running_var": np.full(32, -1, "f4")}, "holds a negative variance"),
        (
            {"Conv2d_9z.conv.weight": np.zeros(2, "f4")},
            "'Conv2d_9z.conv.weight', which is not an array of",
        ),
        ({"fc.weight": np.zeros((1000, 2048), "f4")}, "a classifier of 1000 classes, not 1008"),
    ],
)
def test_files_that_are_not_whole_are_refused(verb, only_stem, tmp_path, changes, message):
    arrays = {name: value for name, value in (only_stem | changes).items() if value is not None}
    path = tmp_path / "x.safetensors"
    safetensors.write(arrays, path)
    code, out, error = verb("weights", "inception", "--from", path, "--out", tmp_path / "out")
    assert code == 2 and not out and not (tmp_path / "out").exists()
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1


def test_other_files_are_refused(verb, only_stem, tmp_path):
    def refused(message, *args):
        code, out, error = verb("weights", "inception", *args)
        assert code == 2 and not out and not (tmp_path / "out").exists()
        assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1

    refused("download/fid_weights/pt_inception-2015-12-05-6726825d.pth")
    refused("cannot be read: No such file", "--from", tmp_path / "gone")
    path = save_torch(tmp_path / "pt_inception-2015-12-05-6726825d.pth", only_stem)
    refused("is not the expected file", "--from", path)
    path = path.rename(tmp_path / "x.pth")
    refused("is not the expected file", "--from", path, "--sha256", "0" * 64)
    whole = path.read_bytes()
    for part in (0, 0.01, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        reason = "its zip is cut short" if part else "it has neither of PyTorch's formats"
        refused(f"cannot be read as pretrained weights: {reason}", "--from", path)
    mark = tmp_path / "mark"
    for payload in (Payload(os.system, f"touch {mark}"), Payload(sys.exit, 3)):
        data = pickle.dumps({f"{FIRST}.conv.weight": payload}, 2)
        refused("Trying to load unsupported GLOBAL ", "--from", zipped(path, {"data.pkl": data}))
        for other in (path, path.with_suffix(".safetensors")):
            other.write_bytes(data)
            refused("its pickle asks for '", "--from", other)
    path = path.with_suffix(".safetensors")
    safetensors.write({"conv1_1/bias": np.zeros(2, np.float32)}, path)
    refused("'conv1_1/bias', which is not an array of Inception-v3", "--from", path)
    assert not mark.exists()


def test_a_file_in_the_cache_is_checked(only_stem, tmp_path):
    with pytest.raises(UserError, match=r"no Inception-v3 at .*anigan weights inception --from"):
        convert.load("inception")
    with pytest.raises(UserError, match=r"no file .*gone"):
        convert.load("inception", str(tmp_path / "gone"))
    path, _ = convert.convert("inception", str(save_torch(tmp_path / "x.pth", only_stem)))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="has changed since it was made"):
        convert.load("inception")
