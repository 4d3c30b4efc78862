"""UCSD's baseline: Radford's DCGAN with k4 kernels.

anigan train ucsd_dcgan --workdir runs/s4 --data.path FACES.zip
... --optimizers.g.name rmsprop --optimizers.d.name adam       (the report's study of optimizers)

Numbers of the report: Adam 2e-4 (0.5, 0.999) for both, BCE, about 20 epochs of 60,000 faces.
Chosen, where it is silent: batch 128, z 100, 64 channels.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN

CONFIG = Config(
    name="ucsd_dcgan",
    method=GAN(),
    data=Images(path="data/faces.zip"),
    batch_size=128,
    run=Run(epochs=20),
)
