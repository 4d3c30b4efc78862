"""Tsinghua: three models. A DCGAN of 100 epochs, a CycleGAN of 300, a CartoonGAN of 100."""

from __future__ import annotations

from anigan_jax.reproduce import figures, numbers
from anigan_jax.reproduce.plan import Experiment, Report, Training

# Its sets: Anime (labeled avatars) and Thumbs (photos).
ANIME, PHOTOS = 115_087, 3_666
EPOCHS, CYCLE_EPOCHS, CARTOON_EPOCHS = 100, 300, 100
TENS = tuple(range(10, EPOCHS + 1, 10))
# Where it divides the rates by ten.
CYCLE_DROP, CARTOON_DROPS, CONTENT = (120,), (50, 75), (10,)


def _drops(parts: tuple[int, ...]) -> tuple:
    return tuple((f"optimizers.{player}.boundaries", parts) for player in "gd")


IN_STEPS = ("--optimizers.g.unit", "step", "--optimizers.d.unit", "step")


def _cycle(name: str, *flags: str) -> Training:
    return Training(
        name,
        "tsinghua_cyclegan",
        images=PHOTOS * CYCLE_EPOCHS,
        parts=CYCLE_EPOCHS,
        small=(6_400, 4),
        speed=(5, 45),
        flags=(*IN_STEPS, *flags),
        scheduled=_drops(CYCLE_DROP),
        judged=(CYCLE_EPOCHS,),
        needs=("photos",),
    )


def _cartoon(name: str, *flags: str) -> Training:
    return Training(
        name,
        "tsinghua_cartoongan",
        images=PHOTOS * CARTOON_EPOCHS,
        parts=CARTOON_EPOCHS,
        small=(2_400, 4),
        speed=(5, 12),
        flags=("--data.edges", *IN_STEPS, *flags),
        scheduled=(*_drops(CARTOON_DROPS), ("method.content-steps", CONTENT)),
        judged=(CARTOON_EPOCHS,),
        needs=("photos", "vgg"),
    )


ENDS = {"dcgan": EPOCHS, "cyclegan": CYCLE_EPOCHS, "cartoongan": CARTOON_EPOCHS}
EXTRA = ("landmark", "grayscale", "color")

REPORT = Report(
    name="tsinghua",
    title="Generating Anime Avatars Using Generative Adversarial Networks",
    authors="Wang Ao, Sun Ziping, Cui Yanfei",
    institution="Tsinghua University",
    trainings=(
        Training(
            "dcgan",
            "tsinghua_dcgan",
            images=ANIME * EPOCHS,
            parts=EPOCHS,
            small=(96_000, 32),
            speed=(90, 600),
            shown=TENS,
            kept=TENS,
            judged=(EPOCHS,),
        ),
        _cycle("cyclegan"),
        _cycle("cyclegan_one_down", "--method.generator.num-downsamples", "1"),
        _cycle("cyclegan_bce", "--method.loss", "non_saturating"),
        _cartoon("cartoongan"),
        *(_cartoon(f"cartoongan_{loss}", f"--method.{loss}", "1") for loss in EXTRA),
    ),
    experiments=(
        Experiment(
            "dcgan",
            "The DCGAN: losses and random samples",
            "figures 5 and 6 (a)",
            "Both players develop well at first; soon D has the upper hand and G's loss grows. "
            "The images are similar to anime avatars, but unclear.",
            ("dcgan",),
            (figures.curves("dcgan", "losses", "scores"), figures.samples("dcgan")),
        ),
        Experiment(
            "interpolation",
            "The DCGAN: continuous noise",
            "figure 6 (b)",
            "Faces on the way between two latents look strange.",
            ("dcgan",),
            (figures.interpolation("dcgan"),),
        ),
        Experiment(
            "epochs",
            "The DCGAN: epochs 10 to 100",
            "figure 6 (c)",
            "G is good at a very early stage; later training has minor effects.",
            ("dcgan",),
            (figures.strip("dcgan", TENS),),
        ),
        Experiment(
            "cyclegan",
            "The CycleGAN: origin, generated, reconstructed; its losses",
            "figures 7 and 9",
            "Reconstructions look like the originals; the GAN loss grows and D's falls to nearly "
            "zero; what is generated is near an identity map, and too colorful.",
            ("cyclegan",),
            (figures.translations("cyclegan"), figures.curves("cyclegan", "losses", "terms")),
        ),
        Experiment(
            "downs-and-loss",
            "The CycleGAN: one or two downs, MSE or BCE",
            "section 3.3",
            "One down-sampling layer generalizes worse than two; MSE is better than BCE.",
            ("cyclegan", "cyclegan_one_down", "cyclegan_bce"),
            (
                numbers.scores(
                    {
                        "two downs, MSE": ("cyclegan",),
                        "one down, MSE": ("cyclegan_one_down",),
                        "two downs, BCE": ("cyclegan_bce",),
                    },
                    CYCLE_EPOCHS,
                    "two downs with MSE are best; no numbers",
                ),
                figures.translations("cyclegan_one_down"),
                figures.translations("cyclegan_bce"),
            ),
        ),
        Experiment(
            "cartoongan",
            "The CartoonGAN beside the CycleGAN",
            "figure 8",
            "CartoonGAN's images are more natural and closer to the photos: lighter, with larger "
            "eyes, and with slight changes only.",
            ("cyclegan", "cartoongan"),
            (
                figures.compared("cyclegan", "cartoongan"),
                figures.curves("cartoongan", "losses", "terms"),
            ),
        ),
        Experiment(
            "extra-losses",
            "The CartoonGAN with landmark, grayscale and color loss",
            "section 3.4",
            "The landmark loss was tried so that important features of the face are kept; "
            "grayscale and color loss were abandoned. It gives no result and no weights: here 1 "
            "each.",
            ("cartoongan", *(f"cartoongan_{loss}" for loss in EXTRA)),
            (
                numbers.scores(
                    {
                        "without": ("cartoongan",),
                        **{f"with {loss}": (f"cartoongan_{loss}",) for loss in EXTRA},
                    },
                    CARTOON_EPOCHS,
                    "landmark was tried to keep features, the others abandoned; no result",
                ),
                figures.compared("cartoongan", *(f"cartoongan_{loss}" for loss in EXTRA)),
            ),
        ),
        Experiment(
            "three-models",
            "The three models compared",
            "section 5",
            "The DCGAN is best; the models that translate are poor.",
            tuple(ENDS),
            (
                numbers.scores(
                    {name: (name,) for name in ENDS}, ENDS, "the DCGAN is best; no numbers"
                ),
                numbers.speed(*ENDS),
                figures.samples("dcgan"),
                figures.compared("cyclegan", "cartoongan"),
            ),
        ),
    ),
)
