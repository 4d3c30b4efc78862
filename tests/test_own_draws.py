"""A network of one's own is given keys for dropout, and the turns of spectral norm."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from tiny import draw

from anigan_jax.config import Config
from anigan_jax.core import Keys
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.blocks import GeneratorSettings
from anigan_jax.networks.dcgan import Discriminator
from anigan_jax.state import init_state

SIDE, BATCH = 16, 3


class Dropping(nn.Module):
    """One convolution, dropout where it has keys, and a count of spectral norm's turns."""

    features: int = 3

    @nn.compact
    def __call__(self, x, *, train=False, power_iterate=False, keys=None):
        turns = self.variable("turns", "n", lambda: jnp.int32(0))
        if power_iterate:
            turns.value += 1
        if x.shape[1] == 1:
            x = jnp.tile(nn.Dense(2)(x), (1, SIDE, SIDE, 1))
        x = nn.Conv(self.features, (3, 3))(x)
        if train and keys is not None:
            assert keys.shape == (len(x),)
            x *= jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, x.shape[1:]))(keys)
        return x


@dataclass(frozen=True)
class DroppingSettings(GeneratorSettings):
    size: int = SIDE
    z_dim: int = 4
    features: int = 3

    def build(self, axis_name=None, dtype="float32"):
        return Dropping(self.features)


D = DroppingSettings(features=1)
# Of a GAN G alone: its D is given keys and turns by other tests.
GAMES = {
    "gan": GAN(generator=DroppingSettings(), discriminator=Discriminator(SIDE, 2)),
    "cycle": CycleGAN(generator=DroppingSettings(), discriminator=D, pool=0),
    "remat": CycleGAN(generator=DroppingSettings(), discriminator=D, pool=0, remat=True),
    "cartoon": CartoonGAN(
        generator=DroppingSettings(), discriminator=D, content=0, content_epochs=0, edge=1.0
    ),
}


def a_step(name):
    """Player -> (loss, new stats) of keys, by the game's own losses."""
    method = GAMES[name].make()
    state = init_state(Config("own", GAMES[name], PaintedFaces()), method, {})
    images = {"image": draw(1, BATCH, SIDE, SIDE, 3), "edges": draw(2, BATCH, SIDE, SIDE, 3)}
    batch = {"a": images, "b": {key: -x for key, x in images.items()}, "constants": {}}

    def run(seed):
        example = jax.random.split(jax.random.key(seed), BATCH)
        keys = Keys(jax.random.key(0), example, draw(3, BATCH, 4))
        found = {}
        for update in method.phases[-1].updates:
            (loss,) = update.losses
            rest = (state, {**batch, "keys": example}, keys)
            value, aux = loss(state.params[update.player], *rest)
            found[update.player] = float(value), aux.stats
        return found

    return run


@pytest.mark.parametrize("name", GAMES)
def test_dropout_follows_the_keys_of_the_examples(name):
    run = a_step(name)
    one, same, other = run(0), run(0), run(1)
    for player in "gd":
        assert one[player][0] == same[player][0]
        assert one[player][0] != other[player][0]


@pytest.mark.parametrize("name", GAMES)
def test_spectral_norm_advances_once_in_an_update(name):
    stats = {player: own for player, (_, own) in a_step(name)(0).items()}
    if name == "gan":
        del stats["d"]
    turns = jax.tree.leaves(stats)
    assert len(turns) == {"gan": 1, "cartoon": 2}.get(name, 4)
    assert [int(n) for n in turns] == [1] * len(turns)
