"""The reference: DCGAN as in pytorch/examples, 64 px, k4, on a folder or zip of faces.

anigan train ref_dcgan64 --workdir runs/ref --data.path FACES.zip

Numbers: z 100, 64 channels, batch 64, Adam 2e-4 (0.5, 0.999), N(0, 0.02) kernels,
25 epochs; the same latents serve D's and G's update.
Trains on 90 % of the images, where the example takes all (--data.test 0).
Departs: D's running statistics are not moved by G's update (nothing reads them).
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN

CONFIG = Config(
    name="ref_dcgan64",
    method=GAN(),
    data=Images(path="data/faces.zip"),
    batch_size=64,
    run=Run(epochs=25),
)
