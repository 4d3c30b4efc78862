"""The reference: GAN-INT-CLS as reedscot/icml2016 trains it, with its halved negatives.

anigan train sjtu_text_encoder --workdir runs/text_encoder --data.path FACES.zip
anigan train ref_text_gan --workdir runs/reed --data.path FACES.zip

Numbers of its scripts: batch 64, Adam 2e-4 (0.5) for both players, rate halved each 100
epochs, z 100, 128 channels in G and 64 in D, k4, texts projected to 128, weights 0.5 of
the wrong texts and of the fakes, beta 0.5; half as many interpolated texts as others in
one mean, which is weight 0.5 here.
Departs: no residual blocks (G at 4x4 and 8x8, D at 4x4); no batch norm of D's projected
text; convolutions keep biases (the code zeroes them each step); the wrong pair is the
right image with another text, as the paper has it (the code takes another image); a
caption is one wording, not a mean of four; every image, not every second, has an
interpolated text; no random crop.
The drops below are for 7,800 images: 100 epochs of 121 steps each. Trains on 90 % of the
images: of 7,800, 109 steps an epoch (121 with --data.test 0).
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.text_conditioning import Encoder
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks.text import TextDiscriminator, TextGenerator
from anigan_jax.optimizers import Optimizer

RATE = Optimizer(boundaries=(12_100, 24_200, 36_300, 48_400, 60_500), gamma=0.5)

CONFIG = Config(
    name="ref_text_gan",
    method=TextGAN(
        generator=TextGenerator(base_channels=128, kernel=4, text_dim=128),
        discriminator=TextDiscriminator(kernel=4, text_dim=128, first_norm=False),
        encoder=Encoder(kind="char_cnn_rnn", path="runs/text_encoder"),
        wrong_weight=0.5,
        fake_weight=0.5,
        int_weight=0.5,
    ),
    data=Images(path="data/faces.zip", unlabeled="drop"),
    batch_size=64,
    flip=True,
    optimizers={"g": RATE, "d": RATE},
    run=Run(epochs=600, keep_every=2000),
)
