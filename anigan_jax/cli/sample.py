"""The verbs that look at a run: pictures of it, and how well it obeys."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from anigan_jax import api
from anigan_jax.cli.common import arguments
from anigan_jax.data import captions
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.report import tables
from anigan_jax.report.table import as_text


def whole_number(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return int(text)


RUN = {"positional": True, "type": Path}
SEED = {"type": whole_number, "default": 0, "metavar": "N", "help": "seed of the latents"}
CHECKPOINT = {"default": "latest", "metavar": "best|latest|STEP", "help": "which one (latest)"}
PROMPT = {"action": "append", "default": [], "metavar": "TEXT", "help": "blue hair red eyes"}


TRUST = {"action": "store_true", "help": "run the code of the run directory"}


def _prompts(given: list[str], file: Path | None = None) -> list[captions.Prompt]:
    """Prompts of the flags, then of a file."""
    found = []
    for text in given:
        found += captions.read_prompts([text], "--prompt")
    if file:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"--prompts {file} cannot be read: {error}") from None
        found += captions.read_prompts(lines, str(file))
    return found


def at_least(flag: str, value: int, low: int) -> None:
    """Refuses a number of a flag that is too small."""
    if value < low:
        raise UserError(f"{flag} is {value}; it must be at least {low}")


def sample(argv: list[str]) -> int:
    """A grid of new images, or a row of them for each prompt."""
    args = arguments(
        "sample",
        argv,
        run=RUN,
        checkpoint=CHECKPOINT,
        trust=TRUST,
        n={"type": int, "help": "images (64), or images for each prompt (8)"},
        seed=SEED,
        prompt=PROMPT,
        prompts={"type": Path, "metavar": "FILE", "help": "prompts, one a line"},
    )
    prompts = _prompts(args.prompt, args.prompts)
    n = args.n if args.n is not None else 8 if prompts else 64
    at_least("--n", n, 1)
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    from anigan_jax.sampling import grids
    from anigan_jax.sampling import prompts as show_text

    if prompts:
        path = show_text.sample(run.model, args.run, prompts, n, args.seed)
    else:
        texts = show_text.texts_of_data(run.model, n, args.seed)
        path = grids.sample(run.model, args.run, n, args.seed, texts)
    print(path)
    return 0


def interpolate(argv: list[str]) -> int:
    """A grid and a GIF along a closed path between latents, or between two prompts."""
    args = arguments(
        "interpolate",
        argv,
        run=RUN,
        checkpoint=CHECKPOINT,
        trust=TRUST,
        frames={"type": int, "default": 60, "help": "frames of the GIF"},
        stops={"type": int, "default": 5, "help": "latents on the path, or shown for a path"},
        seed=SEED,
        prompt={**PROMPT, "help": "of all images; twice: from the first to the second"},
    )
    if args.stops < 2 or args.frames < args.stops:
        raise UserError("--stops must be at least 2, and --frames no fewer than --stops")
    prompts = _prompts(args.prompt)
    if len(prompts) > 2:
        raise UserError(f"--prompt is given {len(prompts)} times; once or twice is allowed")
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    from anigan_jax.sampling import grids
    from anigan_jax.sampling import prompts as show_text

    if len(prompts) == 2:
        rest = (prompts, args.stops, args.frames, args.seed)
        written = show_text.between(run.model, args.run, *rest)
    else:
        text = show_text.one_text(run.model, prompts, args.seed)
        rest = (args.frames, args.stops, args.seed, text, show_text.suffix(prompts))
        written = grids.interpolate(run.model, args.run, *rest)
    for path in written:
        print(path)
    return 0


def table(argv: list[str]) -> int:
    """Every hair color with every eye color as one picture."""
    args = arguments("table", argv, run=RUN, checkpoint=CHECKPOINT, trust=TRUST, seed=SEED)
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    from anigan_jax.sampling import prompts as show_text

    print(show_text.colors(run.model, args.run, args.seed))
    return 0


def history(argv: list[str]) -> int:
    """One prompt at each checkpoint that the run has kept."""
    args = arguments(
        "history",
        argv,
        run=RUN,
        checkpoint=CHECKPOINT,
        trust=TRUST,
        prompt={"required": True, "metavar": "TEXT", "help": "blue hair red eyes"},
        n={"type": int, "default": 4, "help": "latents"},
        columns={"type": int, "default": 10, "help": "at most this many checkpoints"},
        seed=SEED,
    )
    at_least("--n", args.n, 1)
    at_least("--columns", args.columns, 2)
    (prompt,) = _prompts([args.prompt])
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    from anigan_jax.sampling import prompts as show_text

    models = (run.at(step).model for step in show_text.pick_steps(args.run, args.columns))
    print(show_text.history(models, args.run, prompt, args.n, args.seed))
    return 0


def accuracy(argv: list[str]) -> int:
    """Asks a classifier of real images how often a text GAN obeys."""
    args = arguments(
        "accuracy",
        argv,
        run=RUN,
        checkpoint=CHECKPOINT,
        trust=TRUST,
        classifier={"required": True, "type": Path, "metavar": "RUN"},
        n={"type": int, "default": 8, "help": "images for each pair of colors"},
        seed=SEED,
        json={"action": "store_true"},
    )
    at_least("--n", args.n, 1)
    classifier = api.load(args.classifier, "latest", trust=args.trust)
    run = api.load(args.run, args.checkpoint, trust=args.trust)
    held_out = refuse_classifier(args.classifier, classifier, run)
    from anigan_jax.evaluation import prompt_accuracy
    from anigan_jax.storage import atomic, run_dir

    report = prompt_accuracy.measure(run.model, classifier.model, args.n, args.seed)
    images, labels = held_out.part("test"), held_out.labels("test")
    report["ceiling"] = prompt_accuracy.ceiling(classifier.model, images, labels)
    report["classifier"] = str(args.classifier)
    report["same_data"] = classifier.recorded["data_sha256"] == run.recorded["data_sha256"]
    path = run_dir.out_dir(args.run, "accuracy")
    path /= f"step_{report['step']:09d}_seed_{args.seed}.json"
    text = json.dumps(prompt_accuracy.as_json(report), indent=1)
    atomic.save_text(text, path)
    print(text if args.json else f"{as_text(tables.accuracy(json.loads(text)))}\n\n{path}")
    return 0


def refuse_classifier(name: Path, classifier: api.Trained, run: api.Trained) -> Pack:
    """The held-out data of a classifier; refuses one that cannot judge a run."""
    if classifier.method.classify is None:
        raise UserError(f"{name} is not a run of a classifier; train colour_classifier")
    pack = api.data_of(classifier.config)
    if "test" not in pack.manifest["parts"]:
        raise UserError(f"{name} held no images out (--data.test); no ceiling is known")
    if pack.manifest["sha256"] != classifier.recorded["data_sha256"]:
        raise UserError(f"the data of {name} changed since it was trained; train it anew")
    sizes = classifier.config.method.size, run.config.method.size
    if sizes[0] != sizes[1]:
        raise UserError(f"{name} judges images of {sizes[0]} px, but the run makes {sizes[1]} px")
    return pack


def kernels(argv: list[str]) -> int:
    """D's first layer as a picture."""
    args = arguments("kernels", argv, run=RUN, checkpoint=CHECKPOINT, trust=TRUST)
    state = api.load(args.run, args.checkpoint, trust=args.trust).state
    from anigan_jax.sampling import grids

    print(grids.kernels(state, args.run))
    return 0
