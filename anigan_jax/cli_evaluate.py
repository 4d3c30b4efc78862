"""The verb that judges a run on its held-out images."""

from __future__ import annotations

import json

from anigan_jax import cli_show, foreign_weights
from anigan_jax.cli_common import arguments
from anigan_jax.errors import UserError


def evaluate(argv: list[str]) -> int:
    """How right a run's translations are: against the truth where it is known."""
    args = arguments(
        "evaluate",
        argv,
        run=cli_show.RUN,
        vgg16={"default": "", "metavar": "FILE", "help": "weights of LPIPS; else those at home"},
        json={"action": "store_true"},
    )
    run = cli_show.opened(args.run)
    if not run.method.translate:
        raise UserError(f"{args.run} translates nothing; `anigan accuracy` judges a text GAN")
    if not run.pack.has("test"):
        raise UserError(f"{args.run} held no images out (--data.test); nothing to judge it by")
    vgg, missing = None, ""
    try:
        vgg = foreign_weights.find("vgg16", args.vgg16, heads=True)
    except UserError as error:
        if args.vgg16:
            raise
        missing = f"LPIPS is left out: {error}"
    from anigan_jax import accuracy, fidelity, record

    inputs = run.config.method.inputs(run.pack, "test")
    made = fidelity.translations(run.method, run.state, run.pack)
    report = fidelity.measure(run.method, run.state, run.pack, inputs, made, vgg)
    if vgg:
        report["vgg16_sha256"] = foreign_weights.content_sha256(vgg)
    path = args.run / "evaluate" / f"step_{report['step']:09d}.json"
    text = json.dumps(accuracy.as_json(report), indent=1)
    record.save_text(text, path)
    pictures = []
    for direction, images in made.items():
        picture = fidelity.sheet(images, run.pack, direction)
        place = path.with_name(f"{path.stem}_{direction}.png")
        pictures.append(record.save_image(picture, place))
    print(text if args.json else fidelity.as_text(report))
    if args.json:
        return 0
    if missing:
        print(missing)
    if not run.pack.paired:
        print("note: no true partners are known for these images; painted pairs have them")
    for written in (path, *pictures):
        print(written)
    return 0
