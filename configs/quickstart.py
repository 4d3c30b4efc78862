"""A narrow 64-px DCGAN on painted faces: different people in three minutes on 2 CPU cores.

bash launch/quickstart.sh

Spectral norm, hinge, and recolored, shifted images as in `anime_faces`. Mirrored images give a face
two eyes of one color; a lower rate at the end takes the noise away.
Trains on 95 % of 4,096 faces, about 121 steps an epoch.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.optimizers import Optimizer

CONFIG = Config(
    name="quickstart",
    method=GAN(
        generator=Generator(z_dim=64, base_channels=16),
        discriminator=Discriminator(base_channels=16, spectral=True, batch_norm=False, bias=True),
        loss="hinge",
        augment=("color", "translation"),
    ),
    data=PaintedFaces(count=4096, test=0.05),
    batch_size=32,
    flip=True,
    optimizers={
        "g": Optimizer(learning_rate=5e-4, boundaries=(2300,), gamma=0.3),
        "d": Optimizer(learning_rate=5e-4, boundaries=(2300,), gamma=0.3),
    },
    ema_half_life=4000,
    run=Run(steps=3000, sample_every=200, checkpoint_every=1000),
)
