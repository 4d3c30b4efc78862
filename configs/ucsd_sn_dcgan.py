"""UCSD: the DCGAN with spectral norm on D's convolutions, beside its batch norm.

anigan train ucsd_sn_dcgan --workdir runs/sn --data.path FACES.zip --flip
... --method.discriminator.no-batch-norm --method.discriminator.bias      (Miyato's own D)
... --method.generator.spectral            ("the model's convolution layers": G's as well)
... --method.generator.activation-first    (ReLU, then batch norm in G: its section 3.1)

Numbers of the report: Adam 2e-4 (0.5, 0.999), 24 epochs; spectral norm after Miyato et al.
2018 "on top of the vanilla DCGAN", so batch norm stays and biases stay out: `ucsd_dcgan`
but for the division of each kernel of D by its largest singular value.
Chosen, where it is silent: spectral norm in D alone, one power iteration per real pass,
none in G's update (Miyato et al.); batch 128, z 100.
Departs: batch norm, then ReLU in G, as `ucsd_dcgan`.
Trains on 90 % of the images: of 60,000, 421 steps an epoch (468 with --data.test 0).
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Discriminator

CONFIG = Config(
    name="ucsd_sn_dcgan",
    method=GAN(discriminator=Discriminator(spectral=True)),
    data=Images(path="data/faces.zip"),
    batch_size=128,
    run=Run(epochs=24),
)
