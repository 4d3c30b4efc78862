"""Tsinghua's CycleGAN: photos to anime and back, identity : GAN : cycle = 5 : 1 : 10.

anigan train tsinghua_cyclegan --workdir runs/cycle --data.path PHOTOS --data.path-b FACES
... --batch-size 4 --method.generator.base-channels 24
    --method.discriminator.base-channels 24 --flip
    --ema-half-life 2000 --run.steps 4000                   (2 cores: 35 to 60 minutes)

Numbers of the report: two down, four residual blocks, two up, narrower than its DCGAN;
discriminators like the DCGAN's (batch norm after the first layer too, an extra convolution
before the logits), with a map of outputs; MSE for the GAN term (or, worse, BCE:
--method.loss non_saturating), L1 for the others; a pool of former fakes; batch 128, 300
epochs, rate 3e-4, after epoch 120 3e-5.
Chosen, where it is silent: 64 px, 32 channels; in G a 7x7 convolution before the two down
and one after the two up, k3 between, mirrored borders, instance norm (Zhu et al. 2017);
a 4x4 map by a 3x3 convolution in D; Adam (0.5, 0.999), pool 50, D's loss halved (both Zhu
et al.), G without biases before norms. An epoch is one of the photos.
Departs: D learns before G in a step, not after it, so that both see the same fakes and
one pass makes them.
Trains on 90 % of the photos, and of the faces: of 3,666 photos, 25 steps an epoch (28
with --data.test 0); a source with a split of its own keeps it.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator
from anigan_jax.optimizers import Optimizer

RATE = Optimizer(learning_rate=3e-4, unit="epoch", boundaries=(120,))

CONFIG = Config(
    name="tsinghua_cyclegan",
    method=CycleGAN(
        generator=ResnetGenerator(base_channels=32, blocks=4, bias=False),
        discriminator=PatchDiscriminator(
            base_channels=32,
            num_downsamples=4,
            num_flat_convs=0,
            extra=True,
            head_kernel=3,
            norm="batch",
            first_norm=True,
            bias=False,
        ),
    ),
    data=Images(path="data/photo2anime"),
    batch_size=128,
    optimizers={"g": RATE, "d": RATE},
    run=Run(epochs=300),
)
