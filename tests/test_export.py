"""Exported generators: ONNX by its runtime and StableHLO by JAX, beside the model itself."""

import base64
import dataclasses
import io
import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import onnxruntime
import pytest
import tiny
from PIL import Image
from tiny import CARTOON, CYCLE, FULL, NAMES, TEXT, drawn_state, shrunk

from anigan_jax import config_file
from anigan_jax.api import Trained
from anigan_jax.data import attributes
from anigan_jax.errors import UserError
from anigan_jax.export import about, onnx, stablehlo
from anigan_jax.export.card import card
from anigan_jax.export.generators import Generator, generators_of
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.augment import signed
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.text_conditioning import Encoder
from anigan_jax.networks.dcgan import Discriminator
from anigan_jax.networks.dcgan import Generator as DCGAN
from anigan_jax.networks.ops import conv, winograd
from anigan_jax.runtime import backend
from anigan_jax.sampling import grids
from anigan_jax.storage import images as record

BATCHES = (1, 3, 64)


def labels(config, n: int = 64) -> np.ndarray:
    sizes = [len(a.classes) for a in attributes.DEFAULT]
    return np.random.default_rng(5).integers(0, sizes, (n, len(sizes)))


def settled(state):
    """The state with spectral norm's vectors as training leaves them: those of the kernels."""
    for name, own in state.stats["g"].get("spectral", {}).items():
        kernel = state.params["g"][name]["weight"]["kernel"]
        left, _, right = np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]))
        own["weight"].update(v=left[:, 0], u=right[0])
    return state


def opened(config, constants=None) -> Trained:
    """A run of drawn weights, without a folder."""
    method = config.method.make()
    if constants is None:
        encoder = getattr(config.method, "encoder", Encoder())
        constants = text_conditioning.tables(encoder, labels(config)) if method.texts else {}
    state = settled(drawn_state(config, constants))
    model = grids.model_of(method, state, constants)
    return Trained(Path("nowhere"), config, model, {"data_sha256": "d" * 64})


def kinds() -> dict:
    """A config for each generator that any config of the project has, at tiny width."""
    found = {}
    for name in (*NAMES, "CARTOON"):
        config = CARTOON if name == "CARTOON" else shrunk(name)
        if config.method.has_generator:
            network, _ = config.method.networks()["generator"]
            found.setdefault(repr(network.clone(stddev=0.0)), (name, config))
    others = {
        "spectral": {"spectral": True, "norm": DCGAN().norm},
        "same_padding_and_leaky": {"head": "conv", "kernel": 4, "activation": "leaky_relu"},
        "activation_first": {"activation_first": True, "upsample": "nearest", "bias": True},
        "self_modulated": {"self_modulation": 6, "spectral": True},
    }
    for name, changes in others.items():
        generator = dataclasses.replace(FULL.method.generator, **changes)
        method = dataclasses.replace(FULL.method, generator=generator)
        found[name] = (name, dataclasses.replace(FULL, method=method))
    for join in ("concat", "norm"):
        generator = dataclasses.replace(
            TEXT.method.generator, join=join, stem="conv", spectral=True
        )
        method = dataclasses.replace(TEXT.method, generator=generator)
        found[join] = (f"text_{join}", dataclasses.replace(TEXT, method=method))
    return dict(found.values())


KINDS = kinds()


def rows_of(generator: Generator, n: int, side: tuple[int, int] = (16, 16)) -> dict:
    """n rows of each input."""
    draws = np.random.default_rng(1)
    made = {
        "z": lambda: draws.normal(size=(n, *generator.sample["z"].shape[1:])),
        "text": lambda: draws.normal(size=(n, *generator.sample["text"].shape[1:])),
        "label": lambda: draws.integers(
            0, generator.table.shape[:-1], (n, generator.table.ndim - 1)
        ),
        "source": lambda: signed(draws.integers(0, 256, (n, *side, 3), np.uint8)),
    }
    like = generator.sample
    return {name: np.asarray(made[name](), like[name].dtype) for name in like}


def session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def told(data: bytes) -> dict:
    return session(data).get_modelmeta().custom_metadata_map


def run(one: onnxruntime.InferenceSession, inputs: dict) -> np.ndarray:
    """(n, H, W, 3) of an ONNX file."""
    (images,) = one.run(None, onnx.feeds(inputs))
    return images.transpose(0, 2, 3, 1)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_onnx_makes_the_same_images(name):
    """Rows do not depend on the batch, so JAX makes them once."""
    trained = opened(KINDS[name])
    for generator in generators_of(trained, "float32"):
        data, said = onnx.write(generator, about.about(trained, generator))
        assert "at most" in said
        one, inputs = session(data), rows_of(generator, max(BATCHES))
        wanted = generator.images(inputs)
        assert wanted.std() > 5e-3
        for n in BATCHES:
            found = run(one, {key: array[:n] for key, array in inputs.items()})
            assert np.abs(found - wanted[:n]).max() <= 1e-5


@pytest.mark.parametrize("config", [CYCLE, CARTOON], ids=["cycle", "cartoon"])
def test_photos_of_any_size(config):
    trained = opened(config)
    generators = generators_of(trained, "float32")
    assert [g.name for g in generators] == list(trained.method.translate)
    for generator in generators:
        data, _ = onnx.write(generator, {})
        one = session(data)
        for given, made in (((17, 23), (20, 24)), ((5, 6), (8, 8))):
            inputs = rows_of(generator, 2, given)
            found, wanted = run(one, inputs), generator.images(inputs)
            assert found.shape == wanted.shape == (2, *made, 3)
            assert np.abs(found - wanted).max() <= 1e-5
        # As the card says.
        with pytest.raises(Exception, match="Pad reflect"):
            run(one, rows_of(generator, 1, (4, 16)))
    assert "any height and width of at least 5 pixels" in card(trained, {}, "")


def test_both_directions_have_their_own_weights():
    ab, ba = generators_of(opened(CYCLE))
    assert ab.sha256 != ba.sha256
    inputs = rows_of(ab, 1)
    assert np.abs(ab.images(inputs) - ba.images(inputs)).max() > 0.01


def test_a_label_is_what_a_prompt_asks_for():
    """The table inside gives the vector that the words have; classes that are not are refused."""
    trained = opened(TEXT)
    (generator,) = generators_of(trained, "float32")
    data, _ = onnx.write(generator, about.about(trained, generator))
    known = json.loads(told(data)["attributes"])
    assert [a["name"] for a in known] == ["hair", "eyes"]
    row = [a["classes"].index(color) for a, color in zip(known, ("blue", "red"), strict=True)]
    one = session(data)
    z = grids.latents(trained.method, 2, 0)
    found = run(one, {"z": z, "label": np.array([row] * 2)})
    asked = trained.generate(2, prompt="blue hair red eyes")
    assert np.abs(record.to_uint8(found).astype(int) - asked).max() <= 1
    with pytest.raises(Exception, match=r"(?i)invalid|bounds"):
        run(one, {"z": z, "label": np.array([row, [99, 0]])})


def test_texts_that_no_table_holds_are_an_input():
    constants = text_conditioning.tables(TEXT.method.encoder, labels(TEXT))
    constants["wordings"] = np.where(np.arange(132) == 3, 0, constants["wordings"])
    (generator,) = generators_of(opened(TEXT, constants), "float32")
    assert list(generator.sample) == ["z", "text"]
    data, _ = onnx.write(generator, {})
    inputs = rows_of(generator, 3)
    assert np.abs(run(session(data), inputs) - generator.images(inputs)).max() <= 1e-5


def picture(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_a_file_says_where_it_comes_from():
    """With a sample of its inputs that gives the image beside it; no folder is named."""
    data = dataclasses.replace(tiny.IMAGES.data, path="/home/somebody/faces.zip")
    config = dataclasses.replace(FULL, data=data)
    trained = opened(config)
    (generator,) = generators_of(trained, "float32")
    file, _ = onnx.write(generator, about.about(trained, generator, "CC BY 4.0"))
    again, _ = onnx.write(generator, about.about(trained, generator, "CC BY 4.0"))
    assert file == again
    found = told(file)
    assert b"somebody" not in file
    assert found["data_license"] == "CC BY 4.0"
    assert found["weights_sha256"] == generator.sha256
    assert found["weights"] == "ema"
    assert json.loads(found["config"])["method"]["generator"]["z_dim"] == 4
    sample = json.loads(found["sample"])
    images = run(session(file), {"z": np.array([sample["z"]], np.float32)})
    assert np.abs(record.to_uint8(images[0]).astype(int) - picture(sample["images"])).max() <= 1
    assert about.license_of(trained, "") == about.UNSAID
    assert about.license_of(opened(FULL), "") == about.DRAWN


def test_a_translations_sample_gives_its_image():
    (generator,) = generators_of(opened(CARTOON), "float32")
    file, _ = onnx.write(generator, {})
    sample = json.loads(told(file)["sample"])
    images = run(session(file), {"source": np.asarray(signed(picture(sample["source"])))[None]})
    assert np.abs(record.to_uint8(images[0]).astype(int) - picture(sample["images"])).max() <= 1


def test_weights_of_16_bits_are_no_matter():
    """Files compute in float32, whatever the run was trained in."""
    method = dataclasses.replace(FULL.method, dtype="bfloat16")
    trained = opened(dataclasses.replace(FULL, method=method))
    (generator,) = generators_of(trained, "float32")
    data, _ = onnx.write(generator, {})
    inputs = rows_of(generator, 2)
    assert np.abs(run(session(data), inputs) - generator.images(inputs)).max() <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("name", ["FULL", "TEXT", "CYCLE", "R3"])
def test_stablehlo_gives_the_bits_of_the_model(name):
    trained = opened(getattr(tiny, name))
    for generator in generators_of(trained):
        data = stablehlo.write(generator)
        read = jax.export.deserialize(data)
        assert read.platforms == stablehlo.PLATFORMS
        inputs = rows_of(generator, 3)
        found = read.call(*inputs.values())
        assert (np.asarray(found) == generator.images(inputs)).all()


def test_wide_layers_are_exported_with_a_free_batch():
    """Their usual form counts the batch, and asks for layouts that no file may hold."""
    kernel, wide = np.asarray(tiny.draw(1, 4, 4, 128, 128)) / 50, (16, 16, 128)
    layer = jax.jit(lambda x: conv.conv_transpose(x, kernel))
    assert winograd.pays((1, *wide[:2], 512), (2, 2, 128, 512), np.float32)
    batch = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((*batch, *wide), np.float32)
    data = jax.export.export(layer, platforms=["cpu"])(shape).serialize()
    x = tiny.draw(0, 2, *wide)
    found = jax.export.deserialize(data).call(x)
    np.testing.assert_allclose(found, layer(x), atol=1e-5)


def test_convolutions_take_the_form_of_the_backend_that_they_are_traced_for():
    assert conv.lowering() == "blocks"
    with backend.traced_for("cuda"):
        assert conv.lowering() == "native"
    assert conv.lowering() == "blocks"


class Linear(nn.Module):
    """A generator of the user's own."""

    @nn.compact
    def __call__(self, z, *, train: bool):
        return nn.tanh(nn.Dense(16 * 16 * 3)(z)).reshape(-1, 16, 16, 3)


@dataclasses.dataclass(frozen=True)
class Own(DCGAN):
    z_dim: int = 4
    size: int = 16

    def build(self, axis_name=None, dtype="float32"):
        return Linear()


def test_networks_of_ones_own():
    """They have no plan; JAX's form takes any."""
    method = GAN(Own(), Discriminator(size=16, base_channels=4))
    trained = opened(dataclasses.replace(FULL, method=method))
    (generator,) = generators_of(trained)
    with pytest.raises(UserError, match=r"kind Linear .* --to stablehlo"):
        onnx.write(generator, {})
    read = jax.export.deserialize(stablehlo.write(generator))
    inputs = rows_of(generator, 2)
    assert (np.asarray(read.call(*inputs.values())) == generator.images(inputs)).all()
    with pytest.raises(UserError, match="classes of its own"):
        about.refuse_own_code(trained)


def test_places_of_data_are_left_out_of_settings():
    config = config_file.load("sjtu_text_gan")
    encoder = dataclasses.replace(config.method.encoder, path="/home/somebody/encoder")
    config = dataclasses.replace(config, method=dataclasses.replace(config.method, encoder=encoder))
    assert about.published(config).method.encoder == dataclasses.replace(encoder, path="")
