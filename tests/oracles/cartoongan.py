"""CartoonGAN's losses by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from tiny import (
    CARTOON,
    arrays,
)

from anigan_jax import rng
from anigan_jax.training import input

EXAMPLES = jnp.arange(CARTOON.batch_size, dtype=jnp.int32)
CONTENT = CARTOON.method.content_steps
# The landmark network takes most of a step's compilation; its term is tested on its own.
NO_FACES = dataclasses.replace(CARTOON, method=dataclasses.replace(CARTOON.method, landmark=0.0))


def batch_at(config, pack, step, state):
    data, draw = arrays(config, pack), jnp.int32(step)
    held = jax.tree.map(jnp.asarray, dict(data))
    rows = input.gather(held, draw, config.batch_size, EXAMPLES, config.seed)
    batch = input.to_batch(rows, jnp.asarray(state.key), draw, EXAMPLES, config.flip)
    return {**batch, "constants": data.constants}


def keys_at(state):
    none = jnp.zeros((len(EXAMPLES), 0))
    return rng.update_keys(jnp.asarray(state.key), jnp.int32(0), 0, 0, EXAMPLES, none)


def compiled_networks():
    def run(net):
        return jax.jit(lambda params, x: net.apply({"params": params}, x, train=True))

    g = CARTOON.method.generator.build()
    return run(g), run(CARTOON.method.discriminator.build())


G, D = compiled_networks()


@jax.jit
def conv3_1(constants, images):
    """VGG16's conv3_1 before its ReLU, of images in [-1, 1] normalized as ImageNet's."""
    mean, deviation = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
    x = ((images + 1) / 2 - mean) / deviation
    for name in ("conv1_1", "conv1_2", "pool", "conv2_1", "conv2_2", "pool", "conv3_1"):
        if name == "pool":
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            continue
        layout = ("NHWC", "HWIO", "NHWC")
        kernel = constants[f"vgg/{name}/kernel"]
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        x = x + constants[f"vgg/{name}/bias"]
        x = x if name == "conv3_1" else jnp.maximum(x, 0)
    return x


def maps(batch, images):
    return np.asarray(conv3_1(batch["constants"], jnp.asarray(images, jnp.float32)), np.float64)


def gram(features):
    flat = features.reshape(len(features), -1, features.shape[-1])
    return np.stack([f.T @ f / f.size for f in flat])


def luminance(images):
    return images @ np.array([0.299, 0.587, 0.114])


def color(one, other):
    gap = one - other
    y = luminance(gap)
    uv = np.stack([0.436 / 0.886 * (gap[..., 2] - y), 0.615 / 0.701 * (gap[..., 0] - y)])
    huber = np.where(np.abs(uv) <= 1, uv**2 / 2, np.abs(uv) - 0.5)
    return np.abs(y).mean() + huber.sum(0).mean()


def total_variation(images):
    return sum((np.diff(images, axis=axis) ** 2).mean() for axis in (1, 2))


def cross_entropy(logits, real):
    return np.logaddexp(0, -logits if real else logits).mean()


def sigmoid(logits):
    return (1 / (1 + np.exp(-logits))).mean()


def g_by_hand(state, d, batch):
    """Metrics of G's update under the discriminator d; all terms but landmarks."""
    photo = np.asarray(batch["a"]["image"], np.float64)
    made = np.asarray(G(state.params["g"], batch["a"]["image"]), np.float64)
    wanted = gram(maps(batch, batch["b"]["image"]))
    found = {
        "gan": cross_entropy(np.asarray(D(d, jnp.asarray(made, jnp.float32)), np.float64), True),
        "content": np.abs(maps(batch, made) - maps(batch, photo)).mean(),
        "style": np.abs(gram(maps(batch, made)) - wanted).mean(),
        "grayscale": np.abs(luminance(made) - luminance(photo)).mean(),
        "color": color(made, photo),
        "total_variation": total_variation(made),
    }
    weighted = sum((10 if name == "content" else 1) * value for name, value in found.items())
    return {"loss/g": weighted, **{f"loss/{name}": value for name, value in found.items()}}


def d_by_hand(state, batch, edge=1.0):
    made = G(state.params["g"], batch["a"]["image"])
    inputs = {"real": batch["b"]["image"], "fake": made, "edges": batch["b"]["edges"]}
    logits = {n: np.asarray(D(state.params["d"], x), np.float64) for n, x in inputs.items()}
    loss = cross_entropy(logits["real"], True) + cross_entropy(logits["fake"], False)
    right = (logits["real"] > 0).mean() + (logits["fake"] < 0).mean()
    return {
        "loss/d": loss + edge * cross_entropy(logits["edges"], False),
        **{f"score/{name}": sigmoid(values) for name, values in logits.items()},
        "accuracy/d": right / 2,
    }


def same_metrics(got, want, rtol=5e-5):
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=1e-6, err_msg=name)


BARE = dataclasses.replace(
    CARTOON.method,
    content=0.0,
    content_steps=0,
    style=0.0,
    landmark=0.0,
    grayscale=0.0,
    color=0.0,
    total_variation=0.0,
    edge=0.0,
)
