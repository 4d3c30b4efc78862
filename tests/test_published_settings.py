"""Numbers of the reports and papers, held against the configs that train them.

Each row says where its numbers stand: SJTU to UCSD are the five reports in the order of their
files, the others are named. "Chosen" marks what the source leaves open and the config's
docstring decides. Numbers of parameters are the sources' or sums by hand.
"""

import pytest
from oracles.numbers import (
    D64,
    G64,
    adam,
    both,
    convolutions,
    counts,
    kernels,
    noise,
    norms,
    r3gan,
    trained,
)
from tiny import NAMES

from anigan_jax import config_file
from anigan_jax.networks import describe

# --- how a config is read: the one place that knows its classes


def setting(config, path: str):
    """The value of a dotted path; optimizers as `adam` below gives them."""
    if path in ("g", "d"):
        return optimizer(config.optimizers[path])
    if path.startswith("parameters."):
        return parameters(config, path.removeprefix("parameters."))
    if path.startswith("optimizers."):
        _, player, name = path.split(".")
        return getattr(config.optimizers[player], name)
    found = config
    for name in path.split("."):
        found = getattr(found, name)
    return found


def optimizer(settings) -> dict:
    names = (
        "learning_rate",
        "b1",
        "b2",
        "epsilon",
        "unit",
        "boundaries",
        "gamma",
        "decay_start",
        "decay_steps",
    )
    found = {name: getattr(settings, name) for name in names}
    return {"kind": settings.name, **found}


_COUNTS = {}


def parameters(config, network: str) -> int:
    """Trained numbers of a network."""
    if config.name not in _COUNTS:
        _COUNTS[config.name] = describe.describe(config.method.networks())
    return _COUNTS[config.name][network]["parameters"]


# --- the table


def sjtu_counts(t: int) -> dict:
    """SJTU: k5, G 256-128-64-3 after 512 at 4x4, D 64-128-256-512, a text of 256 projected to t;
    every layer has biases, and D a 1x1 convolution to 512 and a 4x4 one to its score."""
    text = 256 * t + t
    stem = (100 + t) * 16 * 512 + 16 * 512
    g = text + stem + kernels(5, 512, 256, 128, 64, 3) + 256 + 128 + 64 + 3
    d = text + kernels(5, 3, 64, 128, 256, 512) + 64 + 128 + 256 + 512
    d += (512 + t) * 512 + 512 + 16 * 512 + 1
    return counts(
        generator=g + norms(512, 256, 128, 64), discriminator=d + norms(64, 128, 256, 512, 512)
    )


def sjtu(t: int) -> dict:
    return {
        "batch_size": 64,  # chosen, Reed et al. 2016
        "flip": False,
        "ema_half_life": 0,
        "g": adam(),  # chosen, Reed et al. 2016
        "d": adam(learning_rate=4e-5),  # SJTU: D's learning rate is scaled by 0.2
        **trained(epochs=40),  # SJTU, figure 2
        **noise(100),  # chosen, Reed et al. 2016
        "method.wrong_weight": 1.0,  # SJTU: the three scores are added
        "method.fake_weight": 1.0,
        "method.int_weight": 1.0,  # chosen
        "method.schedule.g": 2,  # SJTU: d : g of 1 : 2
        "method.int_beta": 0.5,  # SJTU, equation 5
        "method.generator.kernel": 5,  # SJTU
        "method.generator.text_dim": t,  # SJTU: 256, and 128 beside it
        "method.discriminator.kernel": 5,
        "method.discriminator.text_dim": t,
        "method.discriminator.negative_slope": 0.2,
        "method.encoder.kind": "char_cnn_rnn",
        **sjtu_counts(t),
    }


TABLE = {
    "sjtu_text_encoder": {
        # Chosen, Reed et al. 2016 (CVPR): SJTU gives the equations alone.
        "batch_size": 64,
        "flip": True,
        "d": adam(learning_rate=5e-4, b1=0.9),
        **trained(epochs=30),
        "method.text.widths": (64, 128, 256),
        "method.text.hidden": 256,
        "method.text.dim": 256,
        "method.unseen_wordings": 2,
        # 29 characters in windows of 4, a GRU of 256 with 4 biases, a last layer.
        "parameters.text": (4 * 29 * 64 + 64 + 4 * 64 * 128 + 128 + 4 * 128 * 256 + 256)
        + (6 * 256**2 + 4 * 256 + 256**2 + 256),
        "parameters.image": kernels(4, 3, 32, 64, 128, 256)
        + (32 + 64 + 128 + 256 + norms(64, 128, 256) + 16 * 256 * 256 + 256),
    },
    "sjtu_text_gan": sjtu(256),
    "sjtu_text_gan_128": sjtu(128),
    "tsinghua_dcgan": {
        "batch_size": 128,  # Tsinghua
        "flip": False,
        "ema_half_life": 0,
        **both(adam(learning_rate=3e-4)),  # Tsinghua: 3e-4; Adam (0.5, 0.999) is chosen
        **trained(epochs=100),  # Tsinghua
        **noise(100),  # Tsinghua
        # Tsinghua: 512 at 4x4, three doublings to 64, a size-preserving convolution to 3, one
        # more doubling; norms after all but the last.
        "parameters.generator": kernels(4, 100, 512, 256, 128, 64)
        + (kernels(3, 64, 3) + kernels(4, 3, 3) + norms(512, 256, 128, 64, 3)),
        # Tsinghua: the mirror, with a convolution of 512 to 512 before the score.
        "parameters.discriminator": kernels(4, 3, 64, 128, 256, 512)
        + (kernels(3, 512, 512) + kernels(4, 512, 1) + norms(64, 128, 256, 512, 512)),
    },
    "tsinghua_cyclegan": {
        "batch_size": 128,  # Tsinghua
        "ema_half_life": 0,
        **both(
            adam(learning_rate=3e-4, unit="epoch", boundaries=(120,))
        ),  # Tsinghua: 3e-5 after epoch 120
        **trained(epochs=300),  # Tsinghua
        "method.loss": "least_squares",  # Tsinghua: MSE
        "method.identity": 5.0,  # Tsinghua: 5 : 1 : 10
        "method.adversarial": 1.0,
        "method.cycle": 10.0,
        "method.d_scale": 0.5,  # chosen, Zhu et al. 2017
        "method.pool": 50,  # chosen, Zhu et al. 2017
        "method.generator.size": 64,  # chosen
        "method.generator.num_downsamples": 2,  # Tsinghua: two down, four residual, two up
        "method.generator.blocks": 4,
        # Chosen: 32 channels, no biases before norms, instance norm without gains in G.
        "parameters.generator": kernels(7, 3, 32)
        + (2 * kernels(3, 32, 64, 128) + 8 * kernels(3, 128, 128) + kernels(7, 32, 3) + 3),
        # Tsinghua: like its DCGAN's D, at 32 channels, with a map of logits.
        "parameters.discriminator": kernels(4, 3, 32, 64, 128, 256)
        + (kernels(3, 256, 256, 1) + 1 + norms(32, 64, 128, 256, 256)),
    },
    "tsinghua_cartoongan": {
        "batch_size": 8,  # Tsinghua
        "ema_half_life": 0,
        **both(
            adam(unit="epoch", boundaries=(50, 75))
        ),  # Tsinghua: 2e-4, x 0.1 at epochs 50 and 75
        **trained(epochs=100),  # Tsinghua
        "method.loss": "non_saturating",  # Tsinghua: BCE
        "method.content_epochs": 10,  # chosen, Chen et al. 2018
        "method.content_steps": 0,
        "method.adversarial": 1.0,  # Tsinghua: the losses are added together
        "method.edge": 1.0,
        "method.content": 1.0,
        "method.style": 1.0,
        "method.landmark": 0.0,  # Tsinghua tried these too
        "method.grayscale": 0.0,
        "method.color": 0.0,
        "method.total_variation": 0.0,
        "method.features.network": "vgg19",  # Tsinghua
        "method.features.layer": "conv4_4",  # chosen, Chen et al. 2018
        "method.generator.size": 64,  # chosen
        "method.generator.num_downsamples": 2,  # Tsinghua: two down, eight residual, two up
        "method.generator.blocks": 8,
        "parameters.generator": convolutions(
            (7, 3, 64),
            (3, 64, 128),
            (3, 128, 256),
            *[(3, 256, 256)] * 16,
            (3, 256, 128),
            (3, 128, 64),
            (7, 64, 3),
        ),
        # Tsinghua: seven convolutions; channels of Chen et al. 2018.
        "parameters.discriminator": convolutions(
            (3, 3, 32),
            (3, 32, 64),
            (3, 64, 128),
            (3, 128, 128),
            (3, 128, 256),
            (3, 256, 256),
            (3, 256, 1),
        ),
    },
    "csc412_keras_dcgan": {
        "batch_size": 128,  # chosen
        "flip": False,
        "ema_half_life": 0,
        **both(adam(epsilon=1e-7)),  # CSC412: 2e-4, 0.5; Keras's epsilon
        **trained(steps=1400),  # CSC412
        "run.sample_every": "1, every 20",  # CSC412
        **noise(
            100,  # CSC412's summary: 1,654,784 = 101 x 16,384
            split_d=True,  # Keras's train_on_batch
            shared_noise=False,  # CSC412: noise is drawn again for G
            **{"schedule.kind": "as_printed"},
        ),
        "method.generator.output": "sigmoid",  # CSC412
        "method.generator.kernel": 5,
        "method.discriminator.kernel": 5,
        "method.discriminator.dropout": 0.25,  # chosen
        "method.discriminator.negative_slope": 0.2,  # chosen
        "method.generator.norm.momentum": 0.99,  # Keras's batch norm
        "method.generator.norm.epsilon": 1e-3,
        "method.discriminator.norm.momentum": 0.99,
        "method.discriminator.norm.epsilon": 1e-3,
        # CSC412's two summaries print these totals with 960 and 896 statistics.
        "parameters.generator": 2_734_531 - 960,
        "parameters.discriminator": 1_086_273 - 896,
    },
    "aiub_dcgan": {
        "batch_size": 128,  # chosen; so is Adam
        "flip": False,
        "ema_half_life": 0,
        **both(adam()),
        **trained(epochs=25),  # AIUB
        **noise(128, shared_noise=False),  # AIUB: G's update has noise of its own
        "parameters.generator": G64 + 16 * 28 * 512,
        "parameters.discriminator": D64,
    },
    "ucsd_dcgan": {
        "batch_size": 128,  # chosen
        "flip": False,
        "ema_half_life": 0,
        **both(adam()),  # UCSD
        **trained(epochs=20),  # UCSD: samples up to epoch 20
        **noise(100),  # chosen
        **counts(generator=G64, discriminator=D64),
    },
    "ucsd_sn_dcgan": {
        "batch_size": 128,  # chosen
        "flip": False,
        "ema_half_life": 0,
        **both(adam()),  # UCSD
        **trained(epochs=24),  # UCSD: samples up to epoch 24
        **noise(100),  # chosen
        "method.discriminator.spectral": True,  # UCSD: on top of the vanilla DCGAN
        "method.discriminator.batch_norm": True,
        "method.discriminator.bias": False,
        "method.generator.spectral": False,  # chosen, Miyato et al. 2018
        "method.generator.activation_first": False,  # chosen, Radford et al. 2016
        **counts(generator=G64, discriminator=D64),
    },
    "ref_dcgan64": {
        # pytorch/examples, dcgan/main.py.
        "batch_size": 64,
        "flip": False,
        "ema_half_life": 0,
        **both(adam()),
        **trained(epochs=25),
        **noise(100),
        "method.generator.norm.momentum": 0.9,
        "method.generator.norm.epsilon": 1e-5,
        "method.generator.stddev": 0.02,
        "method.discriminator.negative_slope": 0.2,
        **counts(generator=G64, discriminator=D64),
    },
    "ref_text_gan": {
        # reedscot/icml2016, scripts/train_*.sh and main_cls_int.lua.
        "batch_size": 64,
        "flip": True,
        "ema_half_life": 0,
        # Halved each 100 epochs of 121 steps.
        **both(adam(boundaries=(12_100, 24_200, 36_300, 48_400, 60_500), gamma=0.5)),
        **trained(epochs=600),
        **noise(100),
        "method.wrong_weight": 0.5,  # Reed et al. 2016, algorithm 1
        "method.fake_weight": 0.5,
        "method.int_weight": 0.5,
        "method.int_beta": 0.5,
        "method.generator.base_channels": 128,
        "method.generator.kernel": 4,
        "method.generator.text_dim": 128,
        "method.discriminator.base_channels": 64,
        "method.discriminator.kernel": 4,
        "method.discriminator.text_dim": 128,
    },
    "ref_cyclegan": {
        # junyanz/pytorch-CycleGAN-and-pix2pix, options/.
        "batch_size": 1,
        "flip": True,
        "ema_half_life": 0,
        **both(adam(unit="epoch", decay_start=100, decay_steps=100)),
        **trained(epochs=200),
        "method.loss": "least_squares",
        "method.identity": 5.0,
        "method.adversarial": 1.0,
        "method.cycle": 10.0,
        "method.d_scale": 0.5,
        "method.pool": 50,
        "method.generator.size": 256,
        "method.generator.blocks": 9,
        # Its print-out: 11.378 M and 2.765 M.
        "parameters.generator": convolutions(
            (7, 3, 64),
            (3, 64, 128),
            (3, 128, 256),
            *[(3, 256, 256)] * 18,
            (3, 256, 128),
            (3, 128, 64),
            (7, 64, 3),
        ),
        "parameters.discriminator": convolutions(
            (4, 3, 64), (4, 64, 128), (4, 128, 256), (4, 256, 512), (4, 512, 1)
        ),
    },
    # The project's own: measured as they are, see their docstrings and README.
    "anime_faces": {
        "batch_size": 32,
        "flip": True,
        "ema_half_life": 10_000,
        **both(adam(boundaries=(11_336,), gamma=0.25)),
        **trained(13_952),
        **noise(128, shared_noise=False, augment=("color", "translation")),
        "method.generator.base_channels": 32,
        "method.discriminator.base_channels": 32,
        "method.discriminator.spectral": True,
    },
    "anime_words": {
        "batch_size": 32,
        "flip": True,
        "ema_half_life": 10_000,
        **both(adam(boundaries=(9000,), gamma=0.25)),
        **trained(11_000),
        **noise(100, augment=("translation",)),
        "method.generator.base_channels": 32,
        "method.discriminator.base_channels": 32,
        "method.wrong_text": "one_part",
        "method.wrong_weight": 0.5,
        "method.fake_weight": 1.0,
        "method.int_weight": 0.0,
    },
    "painted_text_gan": {
        "batch_size": 32,
        "flip": True,
        "ema_half_life": 5000,
        **both(adam(learning_rate=5e-4, boundaries=(4600,), gamma=0.2)),
        **trained(steps=6000),
        **noise(64),
        "method.loss": "hinge",
        "method.augment": ("translation",),
        "method.wrong_text": "one_part",
        "method.wrong_weight": 0.5,
        "method.fake_weight": 1.0,
    },
    "painted_attributes": {
        "batch_size": 32,
        "flip": True,
        "ema_half_life": 5000,
        **both(adam(learning_rate=5e-4, boundaries=(8000,), gamma=0.2)),
        **trained(steps=10_000),
        **noise(64),
        "method.loss": "hinge",
        "method.augment": ("translation",),
        "method.wrong_text": "each_part",
        "method.wrong_weight": 1.0,
        "method.fake_weight": 1.0,
        "method.generator.negative_slope": 1.0,
        "data.without": ("glasses hat",),
    },
    "painted_cyclegan": {
        "batch_size": 4,
        "ema_half_life": 2000,
        **both(adam()),
        **trained(steps=4000),
        "method.identity": 5.0,
        "method.adversarial": 1.0,
        "method.cycle": 10.0,
        "method.generator.blocks": 4,
    },
    # Huang et al. 2024 and its code; the length is that of the schedules.
    "ref_r3gan_ffhq64": r3gan(2.0, 0.2, **counts(generator=22_429_824, discriminator=22_381_440)),
    "ref_r3gan_ffhq256": r3gan(
        150.0, 15.0, 256, **counts(generator=23_057_952, discriminator=23_009_568)
    ),
    "r3gan_lite": r3gan(2.0, 0.2, images=2_000_000, batch=64, average=50_000),
    "quickstart": {
        "batch_size": 32,
        "flip": True,
        "ema_half_life": 4000,
        **both(adam(learning_rate=5e-4, boundaries=(2300,), gamma=0.3)),
        **trained(steps=3000),
        **noise(64),
        "method.loss": "hinge",
        "method.augment": ("color", "translation"),
    },
    "colour_classifier": {
        "batch_size": 64,
        "flip": True,
        "d": adam(learning_rate=1e-3, b1=0.9),
        **trained(epochs=20),
    },
    "painted_classifier": {
        "batch_size": 64,
        "d": adam(learning_rate=1e-3, b1=0.9),
        **trained(epochs=6),
    },
}


def test_every_config_has_its_row():
    assert set(TABLE) == set(NAMES)


@pytest.mark.parametrize("name", TABLE)
def test_a_config_has_its_sources_numbers(name):
    config = config_file.load(name)
    assert {path: setting(config, path) for path in TABLE[name]} == TABLE[name]
    assert config.seed == 0


def test_sums_by_hand_are_those_of_the_sources():
    """What a print-out of pytorch/examples and a person's count of it give."""
    assert (G64, D64) == (3_576_704, 2_765_568)
