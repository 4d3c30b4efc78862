"""AIUB: the PyTorch DCGAN, z 128, with real and fake scores.

anigan train aiub_dcgan --workdir runs/s3 --data.path FACES.zip
... --method.schedule.kind alternate --method.schedule.d-steps 497 \\
    --method.schedule.g-steps 497        ("some epochs of D, then some of G")

Numbers of the report: D 64-128-256-512-1 and G its mirror, k4, batch 128,
Adam 2e-4 (0.5, 0.999), 25 epochs on 63,632 faces.
Chosen: 64 px (the report's "3x28x28" is a slip), latents fresh for G's update.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Generator

CONFIG = Config(
    name="aiub_dcgan",
    method=GAN(generator=Generator(z_dim=128), shared_noise=False),
    data=Images(path="data/faces.zip"),
    batch_size=128,
    run=Run(epochs=25),
)
