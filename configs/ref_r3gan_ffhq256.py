"""R3GAN at 256 px: the published networks and schedules for FFHQ (Huang et al. 2024).

anigan train ref_r3gan_ffhq256 --workdir runs/r3gan --data.path FACES.zip

As `ref_r3gan_ffhq64`, with widths 768 up to 32 px, then 384, 192 and 96, and gamma 150 to 15.
G 23,057,952 parameters, D 23,009,568.
Trains on 90 % of the images: of 70,000, 246 steps an epoch (273 with --data.test 0); a step
takes two batches, one for each player.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.augment_pipe import EVERYTHING
from anigan_jax.methods.r3gan import R3GAN
from anigan_jax.networks.r3gan import R3Discriminator, R3Generator
from anigan_jax.optimizers import Cosine, Optimizer

IMAGES = 20_000_000
ADAM = Optimizer(
    b1=0.0,
    b2=0.9,
    unit="image",
    decay_steps=IMAGES,
    shape="cosine",
    final_share=0.25,
    final_b2=0.99,
)
CONFIG = Config(
    name="ref_r3gan_ffhq256",
    method=R3GAN(
        generator=R3Generator(size=256),
        discriminator=R3Discriminator(size=256),
        gamma=Cosine(150.0, 15.0),
        pipe=EVERYTHING,
    ),
    data=Images(path="data/faces.zip", size=256),
    batch_size=256,
    flip=True,
    optimizers={"g": ADAM, "d": ADAM},
    ema_half_life=500_000,
    ema_cosine=IMAGES,
    run=Run(steps=IMAGES // 256),
)
