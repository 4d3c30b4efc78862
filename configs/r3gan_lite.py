"""R3GAN at a quarter of its width, for one GPU: 192 channels up to 16 px, 96 at 32, 48 at 64.

anigan train r3gan_lite --workdir runs/lite --data.path FACES.zip
... --size 96                                 (from 6x6; or 128, with --method.gamma.start 17)
... --method.labels --data.unlabeled drop     (faces by words: sample --prompt, table)
... --method.pipe                             (no augmentation)
... --method.penalty-every 8                  (R1 and R2 in every eighth step: faster, less sure)

The networks, losses and kinds of schedules of `ref_r3gan_ffhq64`; 1.4 million parameters each.
Chosen for few thousand labeled faces: schedules over 2,000,000 images; of the augmentation what
leaves faces upright and colors as they are named.
Trains on 90 % of the images: of 7,800, 109 steps an epoch (121 with --data.test 0); a step
takes two batches, one for each player.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.r3gan import R3GAN
from anigan_jax.networks.r3gan import R3Discriminator, R3Generator
from anigan_jax.optimizers import Cosine, Optimizer

IMAGES = 2_000_000
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
    name="r3gan_lite",
    method=R3GAN(
        generator=R3Generator(base_channels=192, full_stages=3),
        discriminator=R3Discriminator(base_channels=192, full_stages=3),
        gamma=Cosine(2.0, 0.2, IMAGES),
        pipe=("xint", "scale", "aniso", "xfrac", "brightness", "contrast", "cutout"),
        pipe_p=Cosine(0.0, 0.3, IMAGES),
    ),
    data=Images(path="data/faces.zip"),
    batch_size=64,
    flip=True,
    optimizers={"g": ADAM, "d": ADAM},
    ema_half_life=50_000,
    ema_cosine=IMAGES,
    run=Run(steps=IMAGES // 64),
)
