"""AIUB: the PyTorch DCGAN, z 128, with real and fake scores.

anigan train aiub_dcgan --workdir runs/s3 --data.path FACES.zip
... --method.schedule.kind alternate --method.schedule.d-steps 447 \\
    --method.schedule.g-steps 447        (an epoch of D, then one of G)

Numbers of the report's text: z 128, transposed convolutions with ReLU, tanh at the end; a
D of convolutions with leaky ReLU to one number; BCE; D, then G with noise of its own; 25
epochs on 63,632 faces. Its abstract has some epochs of D, then some of G, and so on.
Chosen, where it is silent: D 64-128-256-512-1 and G its mirror, k4, batch norm but in D's
first layer, leak 0.2, batch 128, Adam 2e-4 (0.5, 0.999). These are the numbers, from
memory, of the PyTorch DCGAN notebook that the report seems to follow; that one may have a
norm in D's first layer, too (--method.discriminator.first-norm).
Departs: 64 px, as that notebook; the report's "3x28x28" is a slip.
Trains on 90 % of the images: of 63,632, 447 steps an epoch (497 with --data.test 0).
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
