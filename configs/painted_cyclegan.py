"""CycleGAN on painted faces, photo-like to anime: no download, and the truth is known.

anigan train painted_cyclegan --workdir runs/cycle
anigan evaluate runs/cycle

Trained on 4,096 photo-like faces and as many anime faces of other people; 256 held-out
faces are drawn in both styles.
Measured: 4,000 steps in 55 minutes on 2 cores beside other work. Photo to anime, against
the true partners: PSNR 19.99 dB, LPIPS 0.370, hair color right for 98.4 %.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.synthetic.sources import PaintedPairs
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator
from anigan_jax.optimizers import Optimizer

CONFIG = Config(
    name="painted_cyclegan",
    method=CycleGAN(
        generator=ResnetGenerator(base_channels=24, blocks=4, bias=False),
        discriminator=PatchDiscriminator(base_channels=24, num_downsamples=3, bias=False),
    ),
    data=PaintedPairs(count=4096, pairs=256),
    batch_size=4,
    optimizers={"g": Optimizer(), "d": Optimizer()},
    ema_half_life=2000,
    run=Run(steps=4000, sample_every=500, checkpoint_every=500),
)
