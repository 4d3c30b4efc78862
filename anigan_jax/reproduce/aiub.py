"""AIUB: Anik, Datta, Tonmoy and Islam. A DCGAN for 25 epochs on 63,632 faces."""

from __future__ import annotations

from anigan_jax.report.by_epoch import LOSSES, TITLES
from anigan_jax.reproduce import figures, numbers
from anigan_jax.reproduce.plan import Experiment, Report, Training

FACES, EPOCHS = 63_632, 25
PRINTED = (1, 5, 10, 15, 20, 25)
COLUMNS = {name: TITLES[name] for name in (*LOSSES, "score/real", "score/fake")}
# By epoch.
TABLE = {
    1: (3.3059, 0.7899, 0.5771, 0.0475),
    5: (5.8114, 0.3049, 0.9141, 0.1636),
    10: (5.7568, 0.2232, 0.9855, 0.1575),
    15: (3.9303, 0.3790, 0.8527, 0.1580),
    20: (4.1046, 0.1163, 0.9609, 0.0673),
    25: (4.9199, 0.0623, 0.9683, 0.0269),
}
ALTERNATE = ("--method.schedule.kind", "alternate")

REPORT = Report(
    name="aiub",
    title="Automatic Anime Characters Creation with Generative Adversarial Networks",
    authors="Anirban Saha Anik, Bishowjit Datta, Tonmoy, Md. Ariful Islam",
    institution="American International University-Bangladesh",
    trainings=(
        Training(
            "faces",
            "aiub_dcgan",
            images=FACES * EPOCHS,
            parts=EPOCHS,
            small=(360_000, 32),
            speed=(117, 800),
            shown=PRINTED,
            judged=(EPOCHS,),
        ),
        Training(
            "alternating",
            "aiub_dcgan",
            images=FACES * EPOCHS,
            parts=EPOCHS,
            small=(360_000, 32),
            speed=(150, 1000),
            flags=ALTERNATE,
            scheduled=(("method.schedule.d-steps", (1,)), ("method.schedule.g-steps", (1,))),
            shown=PRINTED,
            judged=(EPOCHS,),
        ),
    ),
    experiments=(
        Experiment(
            "table",
            "Losses and scores by epoch",
            "section 4, the table",
            "D's loss falls from 0.79 to 0.06 over 25 epochs; in the end real images score 0.968 "
            "and generated ones 0.027.",
            ("faces",),
            (numbers.by_part("faces", COLUMNS, TABLE),),
        ),
        Experiment(
            "pictures",
            "Real, first and final images",
            "figures 6 to 8",
            "After 25 epochs the images are close to the real ones. Its first figure may be of an "
            "untrained G; ours is of epoch 1.",
            ("faces",),
            (figures.real("faces"), figures.samples("faces", PRINTED)),
        ),
        Experiment(
            "curves",
            "Losses, real and fake scores",
            "figures 9 and 10",
            "Curves over the 25 epochs.",
            ("faces",),
            (figures.curves("faces", "losses", "scores"),),
        ),
        Experiment(
            "alternation",
            "Some epochs of D, then some of G",
            "abstract",
            "Training D for a few epochs, then G for a few, improves both. It does not say for "
            "how many: here one epoch each, so that each learns in half of the steps.",
            ("faces", "alternating"),
            (
                numbers.scores(
                    {"together": ("faces",), "alternating": ("alternating",)},
                    EPOCHS,
                    "alternating improves both; no numbers",
                ),
                figures.curves("alternating", "losses", "scores"),
                figures.samples("alternating", PRINTED),
            ),
        ),
    ),
)
