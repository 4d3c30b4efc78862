"""The verb that judges what a run makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from anigan_jax.cli import sample
from anigan_jax.cli.common import arguments
from anigan_jax.config import Network
from anigan_jax.errors import UserError
from anigan_jax.perceptual import vgg_weights
from anigan_jax.report import tables
from anigan_jax.report.table import as_text

JUDGES = get_args(Network)


def evaluate(argv: list[str]) -> int:
    """Scores of what a run makes, beside those of real held-out images."""
    args = arguments(
        "evaluate",
        argv,
        run=sample.RUN,
        checkpoint=sample.CHECKPOINT,
        n={
            "type": int,
            "help": "generated images (10000); translations are of all held-out photos",
        },
        seed=sample.SEED,
        judge={"action": "append", "choices": JUDGES, "help": "vgg16 if not given; repeatable"},
        vgg16={"default": "", "metavar": "FILE", "help": "its weights; else those at home"},
        inception={"default": "", "metavar": "FILE", "help": "the same of Inception-v3 (FID)"},
        classifier={"type": Path, "metavar": "RUN", "help": "counts pairs of colors that appear"},
        json={"action": "store_true"},
    )
    if args.n is not None:
        sample.at_least("--n", args.n, 2)
    run = sample.opened(args.run)
    state = sample.chosen(run, args.run, args.checkpoint)
    judge = sample.opened(args.classifier) if args.classifier else None
    if judge:
        sample.refuse_judge(args.classifier, judge, run)
    vgg, note = _perceptual(args.vgg16)
    from anigan_jax.evaluation import checkpoint_quality, features

    files = {"vgg16": args.vgg16, "inception": args.inception}
    judges = dict.fromkeys(args.judge or JUDGES[:1])
    # Against true partners a translation can be judged without any network.
    if not vgg and run.method.translate and not args.judge:
        judges = {}
    networks = [features.find(name, files.get(name, "")) for name in judges]
    wanted = checkpoint_quality.Wanted(args.n, args.seed, networks, vgg, judge)
    report, pictures = checkpoint_quality.measure(run, state, wanted)
    paths = checkpoint_quality.write(report, pictures, args.run)
    text = paths[0].read_text()
    if args.json:
        print(text)
        return 0
    print(as_text(tables.quality(json.loads(text)), folded=True), end="\n\n")
    for line in (note, *paths):
        if line:
            print(line)
    return 0


def _perceptual(path: str):
    """Weights of LPIPS, or None and why."""
    try:
        return vgg_weights.find("vgg16", path, heads=True), ""
    except UserError as error:
        if path:
            raise
        return None, f"what VGG16 judges is left out: {error}"
