"""CycleGAN as junyanz/pytorch-CycleGAN-and-pix2pix trains it at 256 px.

anigan train ref_cyclegan --workdir runs/ref_cycle --data.path horse2zebra

Its settings: 9 residual blocks, 64 channels, 70x70 PatchGAN, instance norm, batch 1, Adam
2e-4 (0.5, 0.999), least squares, D's loss halved, pool 50, weights 5 : 1 : 10, mirrored
images, 100 epochs, then 100 with the rate falling to 0.
Departs: the whole image is resized to 256 px, without random crops of one of 286 px; the
rate falls step by step, not epoch by epoch; D learns before G, so that both see the same
fakes; an epoch is one of domain A, not of the larger one.
A source with a split of its own, as trainA and testA, keeps it; of another, 90 % of the
images train.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.networks.resnet import PatchDiscriminator, ResnetGenerator
from anigan_jax.optimizers import Optimizer

RATE = Optimizer(learning_rate=2e-4, unit="epoch", decay_start=100, decay_steps=100)

CONFIG = Config(
    name="ref_cyclegan",
    method=CycleGAN(
        generator=ResnetGenerator(size=256),
        discriminator=PatchDiscriminator(size=256),
    ),
    data=Images(path="data/horse2zebra", size=256),
    batch_size=1,
    flip=True,
    optimizers={"g": RATE, "d": RATE},
    run=Run(epochs=200, sample_every=1000, checkpoint_every=1000),
)
