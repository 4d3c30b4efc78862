"""The files that training and verbs have left in a run directory, for a page; no JAX."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from anigan_jax.errors import UserError
from anigan_jax.storage.metrics_file import spaced
from anigan_jax.storage.run_dir import out_dir, previews_dir

SLIDES = 24
NEWEST = 4
"""Pictures of one verb that a page shows."""

# Of previews: what their names stand for.
TITLES = {
    "ema": "Averaged weights",
    "samples": "Current weights",
    "ab": "A to B",
    "ba": "B to A",
    "a_to_b": "A to B",
    "b_to_a": "B to A",
}
STEP = re.compile(r"step_(\d+)")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Errors of a damaged file of a run, as one sentence that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # A KeyError says the name alone.
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is damaged: {why}") from None


def read_json(path: Path) -> dict:
    """A JSON object of a run directory."""
    with reading(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
        return found


def step_of(path: Path) -> int:
    """The step in a file's or folder's name; -1 where there is none."""
    return _step(path.name)


def _step(name: str) -> int:
    found = STEP.search(name)
    return int(found[1]) if found else -1


def title(name: str) -> str:
    """What a preview, a direction or a verb is called."""
    words = name.replace("_", " ")
    return TITLES.get(name, words[:1].upper() + words[1:])


def previews(run: Path) -> dict[str, dict[int, Path]]:
    """Previews by name, then by step; averaged weights first, since the verbs draw with them."""
    found = {}
    for folder in sorted(previews_dir(run).glob("*/"), key=lambda p: (p.name != "ema", p.name)):
        steps = {step_of(path): path for path in sorted(folder.glob("step_*.png"))}
        if steps:
            found[folder.name] = steps
    return found


def slides(run: Path) -> dict:
    """Previews over the training: {'steps', 'panels': name -> {step: path}}, evenly spaced."""
    panels = previews(run)
    every = sorted({step for found in panels.values() for step in found})
    steps = [every[i] for i in spaced(len(every), SLIDES)]
    kept = {n: {s: found[s] for s in steps if s in found} for n, found in panels.items()}
    return {"steps": steps, "panels": kept}


def real(run: Path) -> list[dict]:
    """The grids of training images that a start writes."""
    both = (run / "real_b.png").exists()
    names = {"real": "Real images, domain A" if both else "Real images"}
    names["real_b"] = "Real images, domain B"
    return [
        {"name": name, "title": title, "path": run / f"{name}.png"}
        for name, title in names.items()
        if (run / f"{name}.png").exists()
    ]


def verbs(run: Path) -> list[str]:
    """The verbs that have left something in a run directory."""
    return sorted(path.name for path in out_dir(run, "").glob("*/"))


def pictures(run: Path, verb: str) -> list[dict]:
    """The newest pictures of a verb: 'step', 'caption', 'path', and 'moving', the path of a GIF
    of the same, or None."""
    folder = out_dir(run, verb)
    # What has many pictures has a folder for them, with all of them in one of these.
    named = {path: path.stem for path in folder.glob("*.png")}
    for sheet in ("rows", "sheet", "directions"):
        named |= {path: path.parent.name for path in folder.glob(f"*/{sheet}.png")}
    steps = {path: _step(name) for path, name in named.items()}
    last = max(steps.values(), default=-1)
    found = []
    for path in sorted(path for path, step in steps.items() if step == last)[:NEWEST]:
        gif = path.with_suffix(".gif")
        moving = gif if gif.exists() else None
        caption = _caption(named[path], last)
        found.append({"step": last, "caption": caption, "path": path, "moving": moving})
    return found


def _caption(name: str, step: int) -> str:
    """'step 6,560, seed 0' of a picture's name; its end, where that says more."""
    parts = re.fullmatch(r"step_\d+(?:_seed_(\d+))?(?:_([0-9a-f]{8}))?(?:_(\w+))?", name)
    if not parts:
        return name
    seed, _, rest = parts.groups()
    end, _, more = (rest or "").partition("_") if rest not in TITLES else (rest, "", "")
    words = [f"step {step:,}", f"seed {seed}" if seed else "", TITLES.get(end, end)]
    return ", ".join(word for word in [*words, more.replace("_", " ")] if word)


def newest(folder: Path, pattern: str) -> Path | None:
    """The file of the highest step; None where there is none. Of several reports of a step, that
    of the most images, which has the plain name."""
    return max(folder.glob(pattern), key=_last, default=None)


def _last(path: Path) -> tuple[int, bool, str]:
    return step_of(path), not re.search("_(by|of)_", path.stem), path.name
