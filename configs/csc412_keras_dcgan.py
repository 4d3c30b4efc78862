"""CSC412: the Keras DCGAN with repeats driven by D's accuracy.

anigan train csc412_keras_dcgan --workdir runs/s2 --data.path FACES.zip
... --method.schedule.kind as_argued      (or fixed, for 1:1)

Numbers of the report: 2,734,531 parameters in G, 1,086,273 in D, images in [0, 1], BCE,
Adam 2e-4 (0.5), 1,400 iterations, pictures after the first and every 20th; D learns from
reals and fakes in two optimizer steps, as train_on_batch does, one batch of fakes for all
repeats of D and fresh noise for each of G. Loss and accuracy of D are means of what the
two calls return, each before its own step; the accuracy decides the next repeats.
The prose has transposed convolutions; this follows the summaries, whose upsampling and
convolutions give those numbers of parameters (their captions are swapped).
Chosen, where it is silent: batch 128, z 100 (from the summary's 1,654,784), dropout 0.25,
leak 0.2, Keras's batch norm (momentum 0.99, epsilon 1e-3), Glorot kernels, epsilon 1e-7;
accuracy before the first iteration is one half.
Departs: reals are drawn without replacement; fakes for D use batch statistics and D's
batch norm keeps batch statistics in G's update, where Keras would use running ones, which
move once in each of D's two passes, as there.
Trains on 90 % of the images (--data.test 0: on all); an iteration is one step.
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
        shared_noise=False,
        schedule=Schedule(kind="as_printed"),
    ),
    data=Images(path="data/faces.zip"),
    batch_size=128,
    optimizers={"g": Optimizer(epsilon=1e-7), "d": Optimizer(epsilon=1e-7)},
    run=Run(steps=1400, sample_every="1, every 20", checkpoint_every=100),
)
