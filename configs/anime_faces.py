"""Faces from noise in about an hour on 2 CPU cores: DiffAugment, average, a late lower rate.

anigan train anime_faces --workdir runs/faces --data.path FACES.zip

Half the width of a DCGAN, so that twice as many images are seen in the time. Reals and fakes
are shifted and recolored before D sees them (Zhao et al. 2020); at 7,000 faces D otherwise
wins within two epochs. Pictures come from averaged weights. A quarter of the rates in the last
fifth of the run clears the faces: KID falls by a third within minutes. The length is in steps,
so that it takes as long with few images as with many. z, the norms and G's latents are those of
`aiub_dcgan`. Spectral norm beside D's batch norm makes shorter runs better (three seeds of half an
hour: KID 0.460 for 0.549). Measured on 7,007 faces: KID-vgg16 0.280, FD 43.0; a D with spectral
norm alone and the hinge loss, as this config had at first, takes twice as long (docs/results.md).
2 cores see 100 to 280 images a second, which makes 27 to 75 minutes.
Trains on 90 % of the images (--data.test 0: on all).
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.optimizers import Optimizer

# 52 and 64 epochs of the 7,007 images that it was measured on.
LATER_LOWER = Optimizer(boundaries=(11_336,), gamma=0.25)

CONFIG = Config(
    name="anime_faces",
    method=GAN(
        generator=Generator(z_dim=128, base_channels=32),
        discriminator=Discriminator(base_channels=32, spectral=True),
        shared_noise=False,
        augment=("color", "translation"),
    ),
    data=Images(path="data/faces.zip"),
    batch_size=32,
    flip=True,
    optimizers={"g": LATER_LOWER, "d": LATER_LOWER},
    ema_half_life=10_000,
    run=Run(steps=13_952, keep_every=2000),
)
