"""UCSD: the DCGAN with spectral norm on D's convolutions.

anigan train ucsd_sn_dcgan --workdir runs/sn --data.path FACES.zip --flip

Numbers of the report: Adam 2e-4 (0.5, 0.999), 24 epochs; spectral norm after Miyato et al.
2018: one power iteration per real pass, none in G's update.
Chosen, where it is silent: no batch norm in D (as Miyato), batch 128, z 100.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.dcgan import Discriminator

CONFIG = Config(
    name="ucsd_sn_dcgan",
    method=GAN(discriminator=Discriminator(spectral=True, batch_norm=False, bias=True)),
    data=Images(path="data/faces.zip"),
    batch_size=128,
    run=Run(epochs=24),
)
