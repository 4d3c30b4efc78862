"""Configs that learn within a minute or two; `test_text_learning` judges them."""

from __future__ import annotations

import dataclasses

from anigan_jax.config import Config, Run
from anigan_jax.data.attributes import EYES, HAIR
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.classifier import ColorClassifier
from anigan_jax.methods.text_encoder import TextEncoder
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.char_cnn_rnn import CharEncoder
from anigan_jax.networks.classifier import Classifier
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.optimizers import Optimizer

FACES = PaintedFaces(count=6000, size=32)
UNSEEN = tuple(
    f"{hair} hair {eyes} eyes" for hair, eyes in zip(HAIR[:11], (*EYES[3:], *EYES[:3]), strict=True)
)


FAST = Optimizer(learning_rate=1e-3)


OBEDIENT = Config(
    name="obedient",
    method=TextGAN(
        generator=TextGenerator(
            z_dim=32, size=32, base_channels=16, kernel=4, embed=32, text_dim=64, join="norm"
        ),
        discriminator=TextDiscriminator(
            size=32,
            base_channels=16,
            kernel=4,
            embed=32,
            spectral=True,
            batch_norm=False,
            first_norm=False,
            join="product",
        ),
        loss="hinge",
        wrong_text="one_part",
        wrong_weight=0.5,
    ),
    data=dataclasses.replace(FACES, without=UNSEEN),
    batch_size=32,
    optimizers={"g": FAST, "d": FAST},
    ema_half_life=2000,
    run=Run(steps=1000, sample_every=1000, checkpoint_every=1000),
)


OBEDIENT_JUDGE = Config(
    name="obedient_judge",
    method=ColorClassifier(network=Classifier(size=32, base_channels=16)),
    data=PaintedFaces(count=6000, size=32, seed=1, test=0.1),
    batch_size=64,
    optimizers={"d": Optimizer(learning_rate=1e-3, b1=0.9)},
    run=Run(steps=400, sample_every=400, checkpoint_every=400),
)


READER = dataclasses.replace(
    OBEDIENT_JUDGE,
    name="reader",
    method=TextEncoder(
        text=CharEncoder(widths=(32, 64), hidden=64, dim=64),
        image=Classifier(size=32, base_channels=16),
    ),
    run=Run(steps=500, sample_every=500, checkpoint_every=500),
)
