"""CSC412: the Keras DCGAN with repeats driven by D's accuracy.

anigan train csc412_keras_dcgan --workdir runs/s2 --data.path FACES.zip
... --method.schedule.kind as_argued      (or fixed, for 1:1)

Numbers of the report: 2,734,531 parameters in G, 1,086,273 in D, images in [0, 1], BCE,
Adam 2e-4 (0.5), 1,400 iterations; D learns from reals and fakes in two optimizer steps,
as train_on_batch does.
Chosen, where it is silent: batch 128, z 100 (from the summary's 1,654,784), dropout 0.25,
leak 0.2, Keras's batch norm (momentum 0.99, epsilon 1e-3), Glorot kernels, epsilon 1e-7;
accuracy before the first iteration is one half.
Departs: reals are drawn without replacement; fakes for D use batch statistics and D's
batch norm keeps batch statistics in G's update, where Keras would use running ones.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.schedule import Schedule
from anigan_jax.networks.blocks import Norm
from anigan_jax.networks.dcgan import Discriminator, Generator
from anigan_jax.optimizers import Optimizer

KERAS = Norm(momentum=0.99, epsilon=1e-3, scale_stddev=0.0)

CONFIG = Config(
    name="csc412_keras_dcgan",
    method=GAN(
        generator=Generator(
            base_channels=32,
            start=8,
            kernel=5,
            stem="dense",
            upsample="nearest",
            head="conv",
            output="sigmoid",
            bias=True,
            norm=KERAS,
            stddev=0.0,
        ),
        discriminator=Discriminator(
            base_channels=32,
            kernel=5,
            head="dense",
            pad_second=1,
            dropout=0.25,
            bias=True,
            norm=KERAS,
            stddev=0.0,
        ),
        split_d=True,
        schedule=Schedule(kind="as_printed"),
    ),
    data=Images(path="data/faces.zip"),
    batch_size=128,
    optimizers={"g": Optimizer(epsilon=1e-7), "d": Optimizer(epsilon=1e-7)},
    run=Run(steps=1400, sample_every=100, checkpoint_every=100),
)
