"""The verb that judges what a run makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from anigan_jax import api
from anigan_jax.cli import sample
from anigan_jax.cli.common import arguments
from anigan_jax.config import FeatureNetwork
from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert
from anigan_jax.report import tables
from anigan_jax.report.table import as_text

JUDGES = get_args(FeatureNetwork)


def evaluate(argv: list[str]) -> int:
    """Scores of what a run makes, beside those of real held-out images."""
    args = arguments(
        "evaluate",
        argv,
        run=sample.RUN,
        checkpoint=sample.CHECKPOINT,
        trust=sample.TRUST,
        n={
            "type": int,
            "help": "generated images (10000); translations are of all held-out photos",
        },
        seed=sample.SEED,
        judge={"action": "append", "choices": JUDGES, "help": "vgg16 if not given; repeatable"},
        vgg16={"default": "", "metavar": "FILE", "help": "its weights; else those in the cache"},
        inception={"default": "", "metavar": "FILE", "help": "the same of Inception-v3 (FID)"},
        classifier={"type": Path, "metavar": "RUN", "help": "counts pairs of colors that appear"},
        json={"action": "store_true"},
    )
    if args.n is not None:
        sample.at_least("--n", args.n, 2)
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    pack = api.data_of(run.config)
    classifier = None
    if args.classifier:
        classifier = api.load(args.classifier, "latest", trust=args.trust)
        sample.refuse_classifier(args.classifier, classifier, run)
    vgg, note = _perceptual(args.vgg16)
    from anigan_jax.evaluation import checkpoint_quality, features
    from anigan_jax.training.input import rows

    files = {"vgg16": args.vgg16, "inception": args.inception}
    judges = dict.fromkeys(args.judge or JUDGES[:1])
    # Against true partners a translation can be judged without any network.
    if not vgg and run.method.translate and not args.judge:
        judges = {}
    networks = [features.find(name, files.get(name, "")) for name in judges]
    data = rows(run.config, pack, "test") if run.method.translate else {}
    wanted = checkpoint_quality.Wanted(
        args.n, args.seed, networks, vgg, classifier.model if classifier else None
    )
    report, pictures = checkpoint_quality.measure(run.model, run.config, pack, data, wanted)
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
        return convert.load("vgg16", path, heads=True), ""
    except UserError as error:
        if path:
            raise
        return None, f"what VGG16 judges is left out: {error}"
