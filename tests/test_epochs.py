"""Lengths and rates in epochs become steps."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CYCLE

from anigan_jax import config as configs
from anigan_jax.optimizers import Optimizer


def rates(settings, images, batch, steps):
    config = dataclasses.replace(
        CYCLE, optimizers={"g": settings, "d": Optimizer(learning_rate=1.0)}, batch_size=batch
    )
    resolved = configs.resolve(config, images)
    assert resolved.optimizers["d"] == config.optimizers["d"]
    return [float(resolved.optimizers["g"].rate(jnp.int32(step))) for step in steps]


@pytest.mark.parametrize(("images", "batch"), [(1000, 128), (44, 8), (16, 16)])
def test_the_seeds_drop_at_epoch_120(images, batch):
    """3e-4, then 3e-5, from the first step of the 121st epoch on."""
    boundary = 120 * (images // batch)
    settings = Optimizer(learning_rate=3e-4, unit="epoch", boundaries=(120,))
    got = rates(settings, images, batch, (0, boundary - 1, boundary, 3 * boundary))
    np.testing.assert_allclose(got, [3e-4, 3e-4, 3e-5, 3e-5], rtol=1e-6)


def test_linear_decay_by_epochs():
    """44 images in batches of 8: epochs of 5 steps; 2 flat, 4 of decay, 0 from then on."""
    settings = Optimizer(learning_rate=1.0, unit="epoch", decay_start=2, decay_steps=4)
    table = {0: 1, 9: 1, 10: 1, 11: 0.95, 15: 0.75, 20: 0.5, 29: 0.05, 30: 0, 31: 0, 1000: 0}
    np.testing.assert_allclose(rates(settings, 44, 8, table), list(table.values()), atol=1e-6)


def test_a_rate_by_epochs_must_be_resolved():
    with pytest.raises(ValueError, match="in_steps"):
        Optimizer(unit="epoch", boundaries=(120,)).rate(jnp.int32(0))
    steps = {"g": Optimizer(boundaries=(7,)), "d": Optimizer()}
    resolved = configs.resolve(dataclasses.replace(CYCLE, optimizers=steps), 44)
    assert resolved.optimizers == steps


def test_epochs_of_a_run_become_steps():
    run = dataclasses.replace(CYCLE.run, steps=0, epochs=3)
    assert configs.resolve(dataclasses.replace(CYCLE, run=run), 44).run.steps == 15
    assert configs.resolve(CYCLE, 44).run.steps == CYCLE.run.steps
