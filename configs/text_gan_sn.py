"""The best text GAN here: spectral norm, hinge, projection, norms that follow the text, EMA.

anigan train text_gan_sn --workdir runs/text --data.path FACES.zip
... --method.generator.base-channels 32 --method.discriminator.base-channels 32
    --batch-size 32    (2 cores)

G: gains and biases of its batch norms follow the text; beside z, as SJTU has it, the
text alone satisfied batch norm's variance and G ignored z (one face for each text).
D: spectral norm everywhere, no batch norm, the text enters by an inner product with the
last map (Miyato and Koyama 2018); texts that differ in one color alone make it look at
the eyes as at the hair; DiffAugment without color, which the text names.
Tags are embedded by the networks, so no encoder is trained.
Trains on 90 % of the images (--data.test 0: on all).

Measured with the second line on 7,007 faces: 6,560 steps (30 epochs) in 42 minutes on 2
cores beside other work; of 952 prompts hair 98.2 %, eyes 93.2 % right.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.text import TextDiscriminator, TextGenerator

CONFIG = Config(
    name="text_gan_sn",
    method=TextGAN(
        generator=TextGenerator(embed=128, kernel=4, join="norm"),
        discriminator=TextDiscriminator(
            embed=128, kernel=4, spectral=True, batch_norm=False, first_norm=False, join="product"
        ),
        loss="hinge",
        wrong_text="one_part",
        wrong_weight=0.5,
        augment=("translation",),
    ),
    data=Images(path="data/faces.zip", unlabeled="drop"),
    batch_size=64,
    flip=True,
    ema_half_life=10_000,
    run=Run(epochs=40, keep_every=2000),
)
