"""UCSD: Pathak and Mehta. A DCGAN of 20 epochs, spectral norm for 24, four pairs of optimizers."""

from __future__ import annotations

from anigan_jax.reproduce import figures, numbers
from anigan_jax.reproduce.plan import Experiment, Report, Training

FACES, EPOCHS, SPECTRAL_EPOCHS = 60_000, 20, 24
SEEDS = range(3)
PAIRS = [(g, d) for g in ("adam", "rmsprop") for d in ("adam", "rmsprop")]


def _baseline(name: str, flags: tuple[str, ...] = (), seed: int = 0) -> Training:
    return Training(
        name,
        "ucsd_dcgan",
        images=FACES * EPOCHS,
        parts=EPOCHS,
        small=(51_200, 32),
        speed=(117, 800),
        flags=flags,
        seed=seed,
        shown=(1, 10, 20),
        judged=(EPOCHS,),
    )


def _name(g: str, d: str, seed: int) -> str:
    """The run of a pair of optimizers; the first of Adam for both is the baseline."""
    return f"{g}_{d}_seed_{seed}" if (g, d, seed) != ("adam", "adam", 0) else "baseline"


def _pair(g: str, d: str, seed: int) -> Training:
    flags = ("--optimizers.g.name", g, "--optimizers.d.name", d)
    return _baseline(_name(g, d, seed), flags, seed)


STUDY = {f"G {g}, D {d}": tuple(_name(g, d, seed) for seed in SEEDS) for g, d in PAIRS}

REPORT = Report(
    name="ucsd",
    title="Exploration and Optimization of Deep Convolutional Generative Adversarial Networks",
    authors="Pragnya Upendra Pathak, Krish Mehta",
    institution="University of California, San Diego",
    trainings=(
        *(_pair(g, d, seed) for g, d in PAIRS for seed in SEEDS),
        _baseline(
            "higher_rate",
            ("--optimizers.g.learning-rate", "4e-4", "--optimizers.d.learning-rate", "4e-4"),
        ),
        Training(
            "spectral",
            "ucsd_sn_dcgan",
            images=FACES * SPECTRAL_EPOCHS,
            parts=SPECTRAL_EPOCHS,
            small=(61_440, 32),
            speed=(110, 750),
            shown=(11, 24),
            judged=(SPECTRAL_EPOCHS,),
        ),
    ),
    experiments=(
        Experiment(
            "optimizers",
            "Adam and RMSProp for G and D",
            "section 4, second point",
            "Of four pairs the best is Adam for both.",
            tuple(name for names in STUDY.values() for name in names),
            (
                numbers.scores(STUDY, EPOCHS, "Adam for both is best; no numbers"),
                figures.gallery(*(names[0] for names in STUDY.values())),
            ),
        ),
        Experiment(
            "discriminator",
            "D's features against nearest neighbors",
            "section 4, third point",
            "A classifier on D's features tells real from generated, but not as well as kNN.",
            ("spectral", "baseline"),
            (
                numbers.probe("spectral", "not up to the level of algorithms like kNN"),
                numbers.probe("baseline", "not up to the level of algorithms like kNN"),
            ),
        ),
        Experiment(
            "rate",
            "A higher learning rate",
            "section 4.2",
            "2e-4 is the best rate; a higher one did not help. It does not say which: here 4e-4.",
            ("baseline", "higher_rate"),
            (
                numbers.scores(
                    {"2e-4": ("baseline",), "4e-4": ("higher_rate",)}, EPOCHS, "2e-4 is best"
                ),
                figures.curves("higher_rate", "losses"),
            ),
        ),
        Experiment(
            "losses",
            "Losses by iteration",
            "figure 3",
            "Losses of G and D over the training.",
            ("baseline",),
            (figures.curves("baseline", "losses"),),
        ),
        Experiment(
            "baseline-epochs",
            "The baseline after 1, 10 and 20 epochs",
            "figures 4 to 6",
            "Faces after 1 epoch, most noise gone after 10, some images true to the data after 20.",
            ("baseline",),
            (figures.real("baseline"), figures.samples("baseline", (1, 10, 20))),
        ),
        Experiment(
            "kernels",
            "Kernels of D's first layer",
            "figure 7",
            "The filters after 20 epochs of the baseline.",
            ("baseline",),
            (figures.kernels("baseline"),),
        ),
        Experiment(
            "spectral-epochs",
            "With spectral norm, after 11 and 24 epochs",
            "figures 8 and 9",
            "With spectral norm the images are diverse.",
            ("baseline", "spectral"),
            (
                figures.samples("spectral", (11, 24)),
                numbers.scores(
                    {"baseline": ("baseline",), "spectral norm": ("spectral",)},
                    {"baseline": EPOCHS, "spectral norm": SPECTRAL_EPOCHS},
                    "spectral norm gives diverse images; no numbers",
                ),
            ),
        ),
    ),
)
