"""Tsinghua's DCGAN: z 100, three doublings to 64x32x32, an extra convolution to 3, one more.

anigan train tsinghua_dcgan --workdir runs/s1 --data.path FACES.zip

Numbers of the report: batch 128, learning rate 3e-4, 100 epochs, BCE, batch norm and leaky
ReLU after every convolution but the last, so after D's first one, too; in D an extra
convolution of 512 to 512 before the score, and no dense layer.
Chosen, where it is silent: Adam (0.5, 0.999), leak 0.2, kernels k4 (k3 in the extra
layers).
Departs: images are scaled to [-1, 1]; "normalized to standard normal distribution", as the
report has it, they would leave tanh's range.
Trains on 90 % of the images: of its 115,087, 809 steps an epoch (899 with --data.test 0).
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.optimizers import Optimizer

CONFIG = Config(
    name="tsinghua_dcgan",
    method=GAN(
        generator=Generator(head="extra", activation="leaky_relu"),
        discriminator=Discriminator(extra=True, first_norm=True),
    ),
    data=Images(path="data/faces.zip"),
    batch_size=128,
    optimizers={"g": Optimizer(learning_rate=3e-4), "d": Optimizer(learning_rate=3e-4)},
    run=Run(epochs=100),
)
