"""Faces from words on a CPU: `anime_faces`, told what to draw.

anigan train anime_words --workdir runs/words --data.path FACES.zip

G: gains and biases of its batch norms follow the text; beside z, as SJTU has it, the
text alone satisfied batch norm's variance and G ignored z (one face for each text).
D: batch norm and BCE, as in `anime_faces`. The text enters by its inner product with as many
outputs as it is long; summed over the places first, as with spectral norm, logits start at 25.
Texts that differ in one color alone make it look at the eyes as at the hair. DiffAugment
without color, which the text names; averaged weights; a quarter of the rates at the end.
Tags are embedded by the networks, so no encoder is trained.
Trains on 90 % of the images (--data.test 0: on all).

Measured on 7,007 faces: 352,000 images in 97 minutes on one core beside other work; KID-vgg16
0.537, FD 84.4 (raw weights 0.455, 80.3); of 952 prompts hair 100 %, eyes 96.1 % right.
`text_gan_sn`, which it replaces (spectral norm, hinge, no late lower rate), had 0.70 and 101,
98.2 and 93.2 % after 210,000.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.optimizers import Optimizer

# In steps, so that it takes as long with few images as with many.
LATER_LOWER = Optimizer(boundaries=(9000,), gamma=0.25)

CONFIG = Config(
    name="anime_words",
    method=TextGAN(
        generator=TextGenerator(base_channels=32, embed=128, kernel=4, join="norm"),
        discriminator=TextDiscriminator(
            base_channels=32, embed=128, text_dim=128, kernel=4, first_norm=False, join="inner"
        ),
        wrong_text="one_part",
        wrong_weight=0.5,
        augment=("translation",),
    ),
    data=Images(path="data/faces.zip", unlabeled="drop"),
    batch_size=32,
    flip=True,
    optimizers={"g": LATER_LOWER, "d": LATER_LOWER},
    ema_half_life=10_000,
    run=Run(steps=11_000, keep_every=2000),
)
