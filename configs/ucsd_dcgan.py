"""UCSD's baseline: Radford's DCGAN with k4 kernels.

anigan train ucsd_dcgan --workdir runs/s4 --data.path FACES.zip
... --optimizers.g.name rmsprop --optimizers.d.name adam       (the report's study of optimizers)
... --method.generator.activation-first                          (ReLU, then batch norm in G)

Numbers of the report: Adam 2e-4 (0.5, 0.999) for both, BCE, about 20 epochs of 60,000 faces.
Chosen, where it is silent: batch 128, z 100, 64 channels; RMSProp's own decay is PyTorch's
0.99 (--optimizers.g.decay).
Departs: batch norm, then ReLU in G, as Radford; the report's section 3.1 has them the
other way around.
Trains on 90 % of the images: of 60,000, 421 steps an epoch (468 with --data.test 0).
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
