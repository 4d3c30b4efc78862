"""The verbs that look at a run: pictures of it, and how well it obeys."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from anigan_jax.cli.common import arguments, open_run
from anigan_jax.config import Config
from anigan_jax.data import captions
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


class Opened(NamedTuple):
    """A run folder: what is recorded, its config and pack, its method, its newest state."""

    recorded: dict
    config: Config
    pack: Any
    method: Any
    state: Any
    at: Callable[[int], Any]
    """step -> the state of that checkpoint"""


def opened(run: Path) -> Opened:
    """Opens a run folder; JAX starts here."""
    recorded, config, pack = open_run(run)
    from anigan_jax.sampling import grids

    method, state = grids.state_of(config, run)

    def at(step: int):
        return grids.state_of(config, run, step)[1]

    return Opened(recorded, config, pack, method, state, at)


def chosen(run: Opened, folder: Path, text: str) -> Any:
    """The state of a run's checkpoint 'latest', 'best' (by KID, see `judge`), or of a step."""
    if text == "latest":
        return run.state
    if text == "best":
        try:
            return run.at(json.loads((folder / "best.json").read_text())["step"])
        except OSError:
            raise UserError(
                f"{folder} knows no best checkpoint; --run.evaluate-every in training finds it"
            ) from None
    if not text.isdigit():
        raise UserError(f"--checkpoint {text!r} is neither 'best', 'latest' nor a step")
    return run.at(int(text))


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
        n={"type": int, "help": "images (64), or images for each prompt (8)"},
        seed=SEED,
        prompt=PROMPT,
        prompts={"type": Path, "metavar": "FILE", "help": "prompts, one a line"},
    )
    prompts = _prompts(args.prompt, args.prompts)
    n = args.n if args.n is not None else 8 if prompts else 64
    at_least("--n", n, 1)
    run = opened(args.run)
    from anigan_jax.sampling import grids
    from anigan_jax.sampling import prompts as show_text

    if prompts:
        path = show_text.sample(run.method, run.state, args.run, prompts, n, args.seed)
    else:
        texts = show_text.texts_of_data(run.method, run.state, n, args.seed)
        path = grids.sample(run.method, run.state, args.run, n, args.seed, texts)
    print(path)
    return 0


def interpolate(argv: list[str]) -> int:
    """A grid and a GIF along a closed path between latents, or between two prompts."""
    args = arguments(
        "interpolate",
        argv,
        run=RUN,
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
    run = opened(args.run)
    from anigan_jax.sampling import grids
    from anigan_jax.sampling import prompts as show_text

    if len(prompts) == 2:
        rest = (prompts, args.stops, args.frames, args.seed)
        written = show_text.between(run.method, run.state, args.run, *rest)
    else:
        text = show_text.one_text(run.method, run.state, prompts, args.seed)
        rest = (args.frames, args.stops, args.seed, text, show_text.suffix(prompts))
        written = grids.interpolate(run.method, run.state, args.run, *rest)
    for path in written:
        print(path)
    return 0


def table(argv: list[str]) -> int:
    """Every hair color with every eye color as one picture."""
    args = arguments("table", argv, run=RUN, seed=SEED)
    run = opened(args.run)
    from anigan_jax.sampling import prompts as show_text

    print(show_text.colors(run.method, run.state, args.run, args.seed))
    return 0


def history(argv: list[str]) -> int:
    """One prompt at each checkpoint that the run has kept."""
    args = arguments(
        "history",
        argv,
        run=RUN,
        prompt={"required": True, "metavar": "TEXT", "help": "blue hair red eyes"},
        n={"type": int, "default": 4, "help": "latents"},
        columns={"type": int, "default": 10, "help": "at most this many checkpoints"},
        seed=SEED,
    )
    at_least("--n", args.n, 1)
    at_least("--columns", args.columns, 2)
    (prompt,) = _prompts([args.prompt])
    run = opened(args.run)
    from anigan_jax.sampling import prompts as show_text

    states = (run.at(step) for step in show_text.pick_steps(args.run, args.columns))
    print(show_text.history(states, run.method, args.run, prompt, args.n, args.seed))
    return 0


def accuracy(argv: list[str]) -> int:
    """Asks a classifier of real images how often a text GAN obeys."""
    args = arguments(
        "accuracy",
        argv,
        run=RUN,
        classifier={"required": True, "type": Path, "metavar": "RUN"},
        n={"type": int, "default": 8, "help": "images for each pair of colors"},
        seed=SEED,
        json={"action": "store_true"},
    )
    at_least("--n", args.n, 1)
    judge, run = opened(args.classifier), opened(args.run)
    refuse_judge(args.classifier, judge, run)
    from anigan_jax.evaluation import prompt_accuracy
    from anigan_jax.storage import atomic, run_dir

    report = prompt_accuracy.measure(
        run.method, run.state, judge.method, judge.state, args.n, args.seed
    )
    images, labels = judge.pack.part("test"), judge.pack.labels("test")
    report["ceiling"] = prompt_accuracy.ceiling(judge.method, judge.state, images, labels)
    report["classifier"] = str(args.classifier)
    report["same_data"] = judge.recorded["data_sha256"] == run.recorded["data_sha256"]
    path = run_dir.out_dir(args.run, "accuracy")
    path /= f"step_{report['step']:09d}_seed_{args.seed}.json"
    text = json.dumps(prompt_accuracy.as_json(report), indent=1)
    atomic.save_text(text, path)
    print(text if args.json else f"{as_text(tables.accuracy(json.loads(text)))}\n\n{path}")
    return 0


def refuse_judge(name: Path, judge: Opened, run: Opened) -> None:
    """Refuses a classifier that cannot judge a run, with the reason."""
    if judge.method.classify is None:
        raise UserError(f"{name} is no run of a classifier; train colour_classifier")
    if "test" not in judge.pack.manifest["parts"]:
        raise UserError(f"{name} held no images out (--data.test); no ceiling is known")
    if judge.pack.manifest["sha256"] != judge.recorded["data_sha256"]:
        raise UserError(f"the data of {name} changed since it was trained; train it anew")
    sizes = judge.config.method.size, run.config.method.size
    if sizes[0] != sizes[1]:
        raise UserError(f"{name} judges images of {sizes[0]} px, but the run makes {sizes[1]} px")


def kernels(argv: list[str]) -> int:
    """D's first layer as a picture."""
    args = arguments("kernels", argv, run=RUN)
    state = opened(args.run).state
    from anigan_jax.sampling import grids

    print(grids.kernels(state, args.run))
    return 0
