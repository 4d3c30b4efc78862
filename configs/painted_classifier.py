"""The judge of text GANs on painted faces; no download.

anigan train painted_classifier --workdir runs/painted_judge

Trains on 90 % of 8,192 faces, about 115 steps an epoch, and is tried on the others.
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.classifier import ColorClassifier
from anigan_jax.networks.classifier import Classifier
from anigan_jax.optimizers import Optimizer

CONFIG = Config(
    name="painted_classifier",
    method=ColorClassifier(network=Classifier(base_channels=16)),
    # Other faces than those of `painted_text_gan`, by the seed.
    data=PaintedFaces(count=8192, seed=1, test=0.1),
    batch_size=64,
    optimizers={"d": Optimizer(learning_rate=1e-3, b1=0.9)},
    run=Run(epochs=6),
)
