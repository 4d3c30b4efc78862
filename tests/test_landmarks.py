"""The landmark network against face-api itself, and its gradient."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from real import DATA, needs_data
from safetensors.numpy import save

from anigan_jax.data import dataset
from anigan_jax.data.images import Images
from anigan_jax.data.synthetic import painted
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError
from anigan_jax.perceptual import landmarks
from anigan_jax.storage import safetensors

# Made by tests/golden/face_api.cjs with face-api 1.7.15 under Node.
GOLDEN = json.loads((Path(__file__).parent / "golden" / "face_api.json").read_text())


def golden(name: str) -> np.ndarray:
    return np.array(GOLDEN[name]).reshape(-1, 68, 2)


@pytest.mark.long
def test_it_equals_face_api():
    images = np.stack([painted.paint(0, i, 64) for i in range(4)])
    np.testing.assert_allclose(landmarks.detect(images), golden("painted"), atol=1e-3)


@needs_data
def test_it_equals_face_api_on_photos_and_lies_on_the_faces(tmp_path):
    images = dataset.build(Images(str(DATA / "us_congress_portraits"), test=0.1), tmp_path).images
    found = landmarks.detect(images)
    np.testing.assert_allclose(found[:4], golden("congress"), atol=1e-3)
    # iBUG's order: eyes above the nose above the mouth, left eye left of the right one.
    eyes, nose, mouth = found[:, 36:48, 1], found[:, 30, 1], found[:, 48:, 1]
    right = (eyes.mean(1) < nose) & (nose < mouth.mean(1))
    right &= found[:, 36:42, 0].mean(1) < found[:, 42:48, 0].mean(1)
    assert right.mean() > 0.99
    # The photos are head crops: the middle of the eyes is near the middle of the picture.
    assert np.abs(found[:, 36:48].mean(1).mean(0) - [32, 29]).max() < 3


def from_face_api(folder: Path) -> bytes:
    """How `landmarks.LANDMARKS` was made of face-api's files: safetensors, still quantized."""
    stem = "face_landmark_68_model"
    (group,) = json.loads((folder / f"{stem}-weights_manifest.json").read_text())
    data = (folder / f"{stem}.bin").read_bytes()
    arrays, at = {}, 0
    for entry in group["weights"]:
        name, quantized = entry["name"], entry["quantization"]
        assert quantized["dtype"] == "uint8", name
        count = int(np.prod(entry["shape"]))
        arrays[name] = np.frombuffer(data, np.uint8, count, at).reshape(entry["shape"])
        arrays[f"{name}/scale"] = np.array([quantized["scale"]])
        arrays[f"{name}/min"] = np.array([quantized["min"]])
        at += count
    assert at == len(data)
    return save(arrays)


@needs_data
def test_the_shipped_weights_are_the_published_ones():
    folder = DATA / "face_landmarks_68"
    assert from_face_api(folder) == landmarks.LANDMARKS.read_bytes()
    license = landmarks.LANDMARKS.with_suffix(".LICENSE").read_text()
    assert license == (folder / "LICENSE").read_text()


@pytest.mark.long
def test_batches_do_not_matter_and_any_size_goes():
    images = np.stack([painted.paint(0, i, 64) for i in range(5)])
    whole = landmarks.detect(images, batch=3)
    np.testing.assert_allclose(whole, landmarks.detect(images, batch=64), atol=1e-4)
    # Pixels of the input: a picture twice as large has points twice as far, about.
    large = images.repeat(2, 1).repeat(2, 2)
    assert np.abs(landmarks.detect(large) / 2 - whole).mean() < 1.5


@pytest.mark.long
def test_its_gradient_is_right():
    model, params = landmarks.Landmarks(), landmarks.face_landmarks()
    image = jnp.asarray(painted.paint(0, 1, 32)[None], jnp.float32)

    def loss(x):
        return (model.apply({"params": params}, x) ** 2).mean()

    gradient = jax.jit(jax.grad(loss))(image)
    direction = gradient / jnp.linalg.norm(gradient)
    value = jax.jit(loss)
    # A level of 255 along the steepest direction; the ReLUs bend the slope a little.
    slope = (value(image + 0.5 * direction) - value(image - 0.5 * direction)) / 1.0
    np.testing.assert_allclose(slope, jnp.linalg.norm(gradient), rtol=0.02)


def test_resize_is_tensorflow_ones():
    image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    got = landmarks.resize(image, 4)[0, :, :, 0]
    want = [[0, 0.5, 1, 1], [1, 1.5, 2, 2], [2, 2.5, 3, 3], [2, 2.5, 3, 3]]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="S, S, 3"):
        landmarks.Landmarks().init(jax.random.key(0), jnp.zeros((1, 8, 9, 3)))


@pytest.mark.long
def test_landmarks_of_a_pack(tmp_path):
    source = PaintedFaces(count=3, size=64)
    made, _ = dataset.import_to(source, tmp_path / "pack", landmarks=landmarks.detect)
    np.testing.assert_allclose(made.part("train", "landmarks"), golden("painted")[:3], atol=1e-3)
    plain, _ = dataset.import_to(source, tmp_path / "plain")
    with pytest.raises(UserError, match="--landmarks"):
        plain.part("train", "landmarks")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95pickle",
        b"\xff" * 64,
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_hostile_weights_are_refused(tmp_path, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError, match="no readable weights"):
        safetensors.read(path)
