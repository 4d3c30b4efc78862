"""SJTU: text to avatar by GAN-CLS and GAN-INT, texts projected to 256.

anigan train sjtu_text_encoder --workdir runs/text_encoder --data.path FACES.zip
anigan train sjtu_text_gan --workdir runs/s0 --data.path FACES.zip
... --method.encoder.kind tags              (a learned embedding, no text encoder needed)
... --method.schedule.g 5                   (5 steps of G for each of D, which it also tried)
... --method.wrong-weight 0.5 --method.fake-weight 0.5      (the halves of Reed et al.)
... --optimizers.d.learning-rate 2e-4    (no factor of its own for D)
anigan sample runs/s0 --prompts sjtu_table_iv               (its tables III, IV and V)

Numbers of the report: k5, G 256-128-64-3, D 64-128-256-512, text projected to 256 with
leaky ReLU 0.2 and repeated at 4x4, the plain sum of D's three terms, beta 0.5, 40 epochs.
Chosen, of what it tried: d : g of 1 : 2 together with D's learning rate times 0.2 ("after
increasing the d:g ratio from 1:2 to 1:5 ... finally, I adjust the learning rate of the D to
0.2").
Chosen, where it is silent: batch 64, z 100, rate 2e-4, as Reed et al. 2016; weight 1 of the
interpolated texts; 512 channels of the first 4x4 map and of D's 1x1 convolution; tanh at the
end of G; leaky ReLU 0.2 also where D's text and its 1x1 convolution are "followed by
rectification". It lists skipthoughts among its libraries but names no encoder; the equations
it gives are those of `sjtu_text_encoder`, and vectors of any other are taken by
--method.encoder.kind precomputed.
Departs: Adam (0.5, 0.999) where the report has "minibatch SGD": its code is built on
carpedm20's DCGAN, and Reed et al. write "minibatch SGD" too; both train with this Adam
(--optimizers.g.name sgd --optimizers.d.name sgd takes the report at its word). GAN-INT's term
is the non-saturating -log D, not equation 5's log(1 - D), as in all of G's loss. The report
applies batch norm before the last deconvolution's output too ("on all layers"); the image
itself is not normalized here.
Trains on 90 % of the images: of the report's 8,956, 125 steps an epoch (139 with
--data.test 0).
"""

from anigan_jax.config import Config, Run
from anigan_jax.data.images import Images
from anigan_jax.methods.schedule import Schedule
from anigan_jax.methods.text_conditioning import Encoder
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.optimizers import Optimizer

CONFIG = Config(
    name="sjtu_text_gan",
    method=TextGAN(
        encoder=Encoder(kind="char_cnn_rnn", path="runs/text_encoder"),
        int_weight=1.0,
        schedule=Schedule(g=2),
    ),
    data=Images(path="data/faces.zip", unlabeled="drop"),
    batch_size=64,
    optimizers={"g": Optimizer(), "d": Optimizer(learning_rate=0.2 * 2e-4)},
    run=Run(epochs=40, keep_every=2000),
)
