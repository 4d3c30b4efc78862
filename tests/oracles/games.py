"""Games between networks that a person can differentiate, and the batches and states they see.

What the package calls a batch, a state and an optimizer is built here and nowhere else in
the tests of losses.
"""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import rng
from anigan_jax.core import Keys, Method, Phase, TrainState
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.players import Networks
from anigan_jax.methods.text_conditioning import Encoder, Texts
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.optimizers import Optimizer
from anigan_jax.training import step as train_step

SIDE, Z_DIM, T_DIM = 2, 3, 2
PIXELS = SIDE * SIDE * 3


# --- what the package names


def game_batch(image_a, image_b=None, edges_b=None) -> dict:
    """The batch that a loss sees: images (b, H, W, 3) of one domain or of two."""
    domains = {"a": {"image": image_a}, "b": {"image": image_b, "edges": edges_b}}
    batch = {
        domain: {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items() if x is not None}
        for domain, arrays in domains.items()
    }
    return {**batch, "keys": example_keys(99, len(image_a)), "constants": {}}


def game_state(params: dict, stats: dict | None = None, extra: dict | None = None):
    """The state that a loss reads; `extra` is what the method itself remembers."""
    return TrainState(
        step=jnp.int32(0),
        key=rng.root_key(0),
        params=params,
        stats=stats or {player: {} for player in params},
        opt_state={},
        ema={},
        ema_stats={},
        extra_state=extra or {},
    )


def extra_of(found):
    """What the method remembers, of a state or of what a loss returns."""
    return found.extra_state


def sgd(rate: float):
    """The settings of plain gradient descent."""
    return Optimizer(name="sgd", learning_rate=rate)


def game_of(settings, g, d):
    """A game of any settings of the noise-to-image families between two given networks."""
    nets = Networks(g, d, settings.generator.unit_range, None)
    return SimpleNamespace(
        updates=lambda: settings.updates(nets),
        generate=nets.generate,
        penalty=functools.partial(settings.penalty, nets),
    )


def train_one_step(config, game, state, batch, z_dim=Z_DIM):
    """(state, metrics, calls) of one step of the game on one device.

    `calls`: player -> [Keys] that its losses were given, in turn.
    """
    calls = {"g": [], "d": []}

    def kept(player, loss):
        def run(params, state, batch, keys):
            jax.debug.callback(lambda *keys: calls[player].append(Keys(*keys)), *keys, ordered=True)
            return loss(params, state, batch, keys)

        return run

    updates = tuple(
        u._replace(losses=tuple(kept(u.player, loss) for loss in u.losses)) for u in game.updates()
    )
    phase = Phase("train", updates)
    method = Method(None, (phase,), None, None, z_dim)
    step = train_step.make_train_step(config, method, phase, None)
    opt_state = {p: config.optimizers[p].build().init(state.params[p]) for p in state.params}
    examples = jnp.arange(len(batch["keys"]), dtype=jnp.int32)
    run = jax.jit(lambda state: step(state, lambda *_: batch, examples))
    state, metrics = run(state.replace(opt_state=opt_state))
    jax.effects_barrier()
    return state, metrics, calls


# --- settings, keys and numbers


def gan(**changes) -> GAN:
    """Settings of a game; its networks are those that `game_of` is given."""
    output = changes.pop("output", "tanh")
    generator = Generator(z_dim=Z_DIM, size=8, base_channels=2, output=output)
    discriminator = Discriminator(size=8, base_channels=2)
    return dataclasses.replace(GAN(generator, discriminator), **changes)


def text_gan(**changes) -> TextGAN:
    """The same of a game with texts of length 2."""
    networks = TextGenerator(z_dim=Z_DIM, size=8), TextDiscriminator(size=8)
    return dataclasses.replace(
        TextGAN(*networks, encoder=Encoder(kind="precomputed", dim=T_DIM)), **changes
    )


def example_keys(seed: int, n: int):
    """n keys that no rule of the package made."""
    return jax.random.split(jax.random.key(seed), n)


def keys_of(z, seed=0) -> Keys:
    """Keys of one update with these latents (b, Z)."""
    shared, examples = jax.random.key(seed + 1000), example_keys(seed, len(z))
    return Keys(shared, examples, jnp.asarray(z, jnp.float32))


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)


def in_float64(tree: dict) -> dict:
    return {name: np.asarray(value, np.float64) for name, value in tree.items()}


def texts(seed: int, n: int) -> Texts:
    """Three kinds of texts (n, 2) for n images."""
    return Texts(*(normal(seed + i, n, T_DIM) for i in range(3)))


# --- networks


def quadratic_d(seed=1) -> dict:
    """Parameters of D(x) = c + w x + q x^2 / 2 (+ t text): its gradient at x is w + q x."""
    return {
        "w": 0.5 * normal(seed, PIXELS),
        "q": 0.5 * normal(seed + 1, PIXELS),
        "t": normal(seed + 2, T_DIM),
        "c": normal(seed + 3),
    }


def affine_g(seed=11) -> dict:
    """Parameters of G(z) = a z + b (+ e text)."""
    return {
        "a": 0.5 * normal(seed, Z_DIM, PIXELS),
        "b": normal(seed + 1, PIXELS),
        "e": 0.5 * normal(seed + 2, T_DIM, PIXELS),
    }


def logits_of(d: dict, images, text=None):
    """D's logits (b,); for arrays of NumPy or of JAX."""
    x = images.reshape(len(images), -1)
    found = d["c"] + x @ d["w"] + (x * x) @ d["q"] / 2
    return found if text is None else found + text @ d["t"]


def images_of(g: dict, z, text=None):
    """G's images (b, 2, 2, 3); for arrays of NumPy or of JAX."""
    x = z @ g["a"] + g["b"]
    x = x if text is None else x + text @ g["e"]
    return x.reshape(len(x), SIDE, SIDE, 3)


class QuadraticD:
    """`quadratic_d` with the interface of a discriminator; keeps what it was asked."""

    def __init__(self):
        self.calls = []

    def apply(self, variables, images, texts=None, *, mutable=(), **asked):
        self.calls.append({"images": images, **asked})
        params = variables["params"]
        if texts is None:
            return logits_of(params, images)[:, None], {}
        return tuple(logits_of(params, images, text)[:, None] for text in texts), {}


class AffineG:
    """`affine_g` with the interface of a generator."""

    def apply(self, variables, z, texts=None, *, train, power_iterate=False, mutable=(), **_keys):
        z = z.reshape(len(z), -1)
        if texts is None:
            return images_of(variables["params"], z), {}
        return tuple(images_of(variables["params"], z, text) for text in texts), {}
