"""What the verbs share: types of their arguments with their help, and checks."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.config import Config
from anigan_jax.data.kinds import SUFFIXES
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment

if TYPE_CHECKING:
    from anigan_jax.api import Trained
    from anigan_jax.sampling.photos import Gathered

RunDir = Annotated[Path, Positional, arg(metavar="RUN", help="a run directory")]
ConfigName = Annotated[
    str, Positional, arg(metavar="CONFIG", help="a file, or a name that `anigan --help` lists")
]
Checkpoint = Annotated[str, arg(metavar="best|latest|STEP", help="which checkpoint to use")]
Weights = Annotated[
    configs.Weights | None,
    arg(metavar="raw|ema", help="G's weights, as trained or averaged; if omitted: averaged if any"),
]
Trust = Annotated[bool, arg(help="run the code that the run directory contains, if any")]
Seed = Annotated[int, arg(metavar="N", help="random seed, at least 0")]
AsJson = Annotated[bool, arg(help="print JSON, for programs")]
Overrides = Annotated[tuple[str, ...], "overrides"]
"""Words of the command line that are no flags of the verb: settings of the config."""

# Names that settings had before, or have elsewhere.
_OPTIMIZER = {
    "rate": "learning-rate",
    "lr": "learning-rate",
    "drops": "boundaries",
    "drop-factor": "gamma",
    "decay-from": "decay-start",
}
_SETTINGS = {
    "run.judge": "run.eval-network",
    "run.feed": "run.input",
    "run.silent-after": "run.heartbeat-timeout",
    "run.stuck-after": "run.stall-timeout",
    "data": "data.path",
    "steps": "run.steps",
    "epochs": "run.epochs",
    "path": "data.path",
    "labels": "data.tags",
    "batch": "batch-size",
    **dict.fromkeys(("resolution", "res", "image-size", "img-size"), "size"),
    **dict.fromkeys(("gpus", "devices", "num-gpus"), "run.devices"),
    **dict.fromkeys(("outdir", "out", "output-dir"), "workdir"),
}
# The same of the verbs' own flags, where a verb has them.
_FLAGS = {
    **dict.fromkeys(("num", "count", "samples", "n-samples", "num-samples"), "n"),
    **dict.fromkeys(("outdir", "output", "outfile", "output-dir"), "out"),
    **dict.fromkeys(("ckpt", "step"), "checkpoint"),
    **dict.fromkeys(("resolution", "res", "image-size", "img-size"), "size"),
    **dict.fromkeys(("labels", "captions"), "tags"),
    "text": "prompt",
}
# Values that belong to another flag: the flag, how they look, and which flag takes them.
_VALUES = (("--seed", r"\d+\s*(-|,|\.\.).*", "--seeds {} makes a PNG for each of several seeds"),)
_FIRST = {
    "run.steps": "length in steps; 0: --run.epochs decides",
    "batch-size": "images per step, over all devices",
    "data.path": "the images: a folder, .zip, .tar, tfds:NAME, or a pack of `anigan import`",
    "size": "side of the images in pixels, for data and networks: 64, 96, 128",
    "seed": "root of all randomness",
    "run.devices": "how many devices to use; 0: all",
}


def at_least(flag: str, value: int, low: int) -> None:
    """Refuses a number of a flag that is too small."""
    if value < low:
        raise UserError(f"{flag} is {value}; it must be at least {low}")


def need_seed(seed: int) -> None:
    """Refuses a --seed that would draw what another one does."""
    from anigan_jax.sampling.grids import SEEDS

    if not 0 <= seed < SEEDS:
        raise UserError(f"--seed is {seed}; it must be 0 to {SEEDS - 1}")


def need_other(out: Path | None, given: Iterable[Path]) -> None:
    """Refuses an --out that is one of the files or folders that are read."""
    if out and out.resolve() in [path.resolve() for path in given]:
        raise UserError(f"--out {out} is one of the inputs; give another path")


def need_folder(out: Path | None) -> None:
    """Refuses a folder for files where a file is, or that would lie in one, before the work."""
    for place in (out, *out.parents) if out else ():
        if place.exists() and not place.is_dir():
            raise UserError(f"--out {out} cannot be a folder: {place} is a file")
    if out and out.suffix.lower() in (*SUFFIXES, ".gif", ".safetensors") and not out.is_dir():
        raise UserError(f"--out {out} will be a folder of files; leave out {out.suffix}")


def need_new_latents(out: Path | None) -> None:
    """Refuses a folder for latents that holds some already."""
    from anigan_jax.sampling.latents import FILE

    need_folder(out)
    if out and (out / FILE).exists():
        raise UserError(f"--out {out} already holds latents; give another folder")


def need_classifier(name: Path, run: Trained, size: int) -> None:
    """Refuses a run that is none of a classifier, or of one that judges images of another size."""
    if run.method.scores is None:
        raise UserError(f"{name} is not a run of a classifier; train colour_classifier")
    own = run.config.method.size
    if own != size:
        raise UserError(f"{name} judges images of {own} px, but the run makes {size} px")


def epochs_of(flag: str, text: str) -> list[int]:
    """Epochs that a flag lists, '1,5,10'."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise UserError(f"{flag} {text!r} is not a list of epochs, such as 1,5,10")
    return [int(word) for word in words]


def told_left_out(found: Gathered) -> int:
    """Says on stderr which photos were not used as asked; gives the exit code."""
    from anigan_jax.sampling import photos

    if found.centered:
        print(f"note: {found.centered} without a face box; the center is used", file=sys.stderr)
    if found.aside:
        print(f"note: {found.aside} in the folder of --out are not read", file=sys.stderr)
    for finding in found.left_out:
        print(f"left out: {photos.reason(finding)}", file=sys.stderr)
    return 1 if found.left_out else 0


def meant(words: Sequence[str], flags: set[str]) -> list[str]:
    """What flags that a verb has not, and values that its flags have not, are called there."""
    found = []
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        flag, _, value = word.replace("_", "-").partition("=")
        ours = f"--{_FLAGS.get(flag.removeprefix('--'), '')}"
        if flag.startswith("--") and flag not in flags and ours in flags:
            found.append(f"{flag} is {ours}")
        for own, looks, hint in _VALUES:
            if flag == own and own in flags and re.fullmatch(looks, value or following):
                found.append(hint.format((value or following).replace("..", "-")))
    return found


@contextlib.contextmanager
def writing(out: Path, flag: str = "--out") -> Iterator[None]:
    """Turns what a disk answers into a refusal that names the output, and what moves it."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"{out} cannot be written: {error.strerror or error}{where}; use another {flag}"
        ) from None


def settings(name: str, overrides: Sequence[str], prog: str) -> Config:
    """A config by name or path, overridden."""
    config = config_file.load(name)
    return overridden(config, overrides, prog)


def overridden(config: Config, overrides: Sequence[str], prog: str) -> Config:
    """A config with overrides; what is refused comes with the name that was meant."""
    with hinted(config, overrides):
        return config_file.override(config, list(overrides), prog)


@contextlib.contextmanager
def hinted(config: Config, overrides: Sequence[str]) -> Iterator[None]:
    """Adds to a refusal of overrides what their flags are called here."""
    try:
        yield
    except UserError as error:
        pairs = itertools.zip_longest(overrides, overrides[1:], fillvalue="")
        found = [(_hint(config, word), _switch(config, word, after)) for word, after in pairs]
        hints = dict.fromkeys(filter(None, itertools.chain(*found)))
        raise UserError("\n  ".join([*hints, str(error)])) from None


def _switch(config: Config, word: str, following: str) -> str:
    """How a setting that is on or off is called, where a flag of it has a value."""
    flag, given, _ = word.removeprefix("--").partition("=")
    setting = config_file.setting_of(flag)
    valued = word.startswith("--") and (given or not (following or "--").startswith("--"))
    if not valued or not isinstance(value_of(config, setting), bool):
        return ""
    front, _, name = setting.rpartition(".")
    off = f"{front}.no-{name}".removeprefix(".")
    return f"--{setting} takes no value: --{setting} turns it on, --{off} off"


def _hint(config: Config, word: str) -> str:
    flag = word.partition("=")[0].removeprefix("--").replace("_", "-")
    value = value_of(config, flag)
    if not word.startswith("--") or (value is not None and not dataclasses.is_dataclass(value)):
        return ""
    if flag in ("lr", "learning-rate"):
        flags = [f"--optimizers.{player}.learning-rate" for player in config.optimizers]
        return f"--{flag} is {' and '.join(flags)}: each player has its own"
    if new := _SETTINGS.get(flag):
        return f"--{flag} is --{new}"
    parts = re.fullmatch(r"(?:optimizers\.)?([a-z]\w*)\.([a-z-]+)", flag)
    if parts and parts[1] in config.optimizers:
        player, name = parts.groups()
        return f"--{flag} is --optimizers.{player}.{_OPTIMIZER.get(name, name)}"
    if flag.startswith("data.") and config.data.drawn:
        return f"{config.name} draws its own images; {_with_images(config)}"
    return ""


def _with_images(config: Config) -> str:
    """Which configs train the same kind of model on images of one's own."""
    if not config_file.is_shipped(config.name):
        return (
            'for your own, write data=Images(path="FACES.zip") in its file, with `from '
            "anigan_jax.data.images import Images`"
        )
    names = []
    for path in sorted(environment.config_folder().glob("[a-z]*.py")):
        other = config_file.load(str(path))
        if type(other.method) is type(config.method) and not other.data.drawn:
            names.append(path.stem)
    return f"to use your own, take {' or '.join(names)}" if names else "it takes no others"


def value_of(config: Config, flag: str) -> Any:
    """The value of a setting by its flag, 'run.steps'; None where there is no such setting."""
    value: Any = config
    for part in flag.replace("-", "_").split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif dataclasses.is_dataclass(value) and part in {
            f.name for f in dataclasses.fields(value)
        }:
            value = getattr(value, part)
        else:
            return None
    return value


def settings_help(name: str, prog: str) -> None:
    """Prints the settings of a config: first those that everybody needs, then all.

    Raises:
      SystemExit: 0, when all is printed.
    """
    config = config_file.load(name)
    print(f"\nthe settings most people need (of {name}):\n")
    for flag, about in _FIRST.items():
        # `--size` is no setting of its own: `config_file.sized` makes it theirs.
        value = config.data.size if flag == "size" else value_of(config, flag)
        if value is not None:
            print(f"  --{flag:12} {about} (default: {value!r})")
    print("\nall settings:\n")
    config_file.override(config, ["--help"], prog)
