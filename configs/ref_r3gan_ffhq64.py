"""R3GAN at 64 px: the published networks and schedules for FFHQ (Huang et al. 2024).

anigan train ref_r3gan_ffhq64 --workdir runs/r3gan --data.path FACES.zip
... --method.labels --data.unlabeled drop    (conditioned on the attributes of the data)

Numbers of the paper and its code: widths 768 up to 32 px, 384 at 64; 2 residual blocks a stage,
groups of 16 channels; z 64; batch 256; gamma 2 to 0.2, learning rate 2e-4 to 5e-5, Adam's b2 0.9
to 0.99, augmentation 0 to 0.3, half-life of the averaged weights 0 to 500,000 images: each by half
a cosine over 20,000,000 images. G 22,429,824 parameters, D 22,381,440.
Chosen, where it is silent: the length, which is that of the schedules.
Departs: the augmentation pipe filters linearly and is gray outside of an image; with dtype
bfloat16 all products are in it, also those of the 4x4 maps.
Trains on 90 % of the images: of 70,000, 246 steps an epoch (273 with --data.test 0); a step
takes two batches, one for each player.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.augment_pipe import EVERYTHING
from anigan_jax.methods.r3gan import R3GAN
from anigan_jax.optimizers import Optimizer

IMAGES = 20_000_000
ADAM = Optimizer(
    b1=0.0,
    b2=0.9,
    unit="image",
    decay_steps=IMAGES,
    shape="cosine",
    final_share=0.25,
    final_b2=0.99,
)
CONFIG = Config(
    name="ref_r3gan_ffhq64",
    method=R3GAN(pipe=EVERYTHING),
    data=Images(path="data/faces.zip"),
    batch_size=256,
    flip=True,
    optimizers={"g": ADAM, "d": ADAM},
    ema_half_life=500_000,
    ema_cosine=IMAGES,
    run=Run(steps=IMAGES // 256),
)
