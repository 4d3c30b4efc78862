"""SJTU with texts projected to 128, which the report found slower (epoch 13, not 4).

anigan train sjtu_text_gan_128 --workdir runs/s0_128 --data.path FACES.zip

Everything else is `sjtu_text_gan`, where the sources of the numbers stand. It, too, trains
on 90 % of the images.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.schedule import Schedule
from anigan_jax.methods.text_conditioning import Encoder
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.optimizers import Optimizer

CONFIG = Config(
    name="sjtu_text_gan_128",
    method=TextGAN(
        generator=TextGenerator(text_dim=128),
        discriminator=TextDiscriminator(text_dim=128),
        encoder=Encoder(kind="char_cnn_rnn", path="runs/text_encoder"),
        int_weight=1.0,
        schedule=Schedule(g=2),
    ),
    data=Images(path="data/faces.zip", unlabeled="drop"),
    batch_size=64,
    optimizers={"g": Optimizer(), "d": Optimizer(learning_rate=0.2 * 2e-4)},
    run=Run(epochs=40, keep_every=2000),
)
