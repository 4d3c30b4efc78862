"""The files that verbs have left in a run folder, for a page; no JAX."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from anigan_jax.errors import UserError
from anigan_jax.storage.metrics_file import spaced

SLIDES = 24
NEWEST = 4
"""Pictures of one verb that a page shows."""

# What verbs write: folder, what its newest pictures are called.
VERBS = {
    "interpolate": "Between latents",
    "table": "Every hair color with every eye color",
    "history": "One prompt over the training",
    "sample": "New images",
    "translate": "Translated photos",
    "compare": "The same photos by two runs",
    "evaluate": "Held-out images and what they become",
    "kernels": "First layer of D",
}
NO_PANEL = {*VERBS, "accuracy", "probe", "curves", "checkpoints"}
STEP = re.compile(r"step_(\d+)")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What a file of a run does not hold as it should, as an error for people."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # A KeyError says the name alone.
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is damaged: {why}") from None


def read_json(path: Path) -> dict:
    """A JSON object of a run folder."""
    with reading(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
        return found


def step_of(path: Path) -> int:
    """The step in a file's or folder's name; -1 where there is none."""
    found = STEP.search(path.name)
    return int(found[1]) if found else -1


def direction(name: str) -> str:
    """'ab' or 'a_to_b' -> 'A to B'; other names with spaces."""
    if name in ("ab", "ba"):
        return f"{name[0].upper()} to {name[1].upper()}"
    if re.fullmatch(r"[ab]_to_[ab]", name):
        return f"{name[0].upper()} to {name[-1].upper()}"
    return name.replace("_", " ")


def slides(run: Path) -> dict:
    """Previews over the training: {'steps', 'panels': name -> {step: path}}, evenly spaced."""
    panels = {}
    for folder in sorted(path for path in run.iterdir() if path.is_dir()):
        found = {step_of(p): p for p in sorted(folder.glob("step_*.png"))}
        if found and folder.name not in NO_PANEL:
            panels[folder.name] = found
    # Averaged weights first: they are what the verbs draw with.
    panels = dict(sorted(panels.items(), key=lambda item: (item[0] != "ema", item[0])))
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


def pictures(run: Path) -> list[dict]:
    """The newest pictures of each verb: 'verb', 'title', 'step', 'caption', 'path', and 'moving',
    the path of a GIF of the same, or None."""
    found = []
    for verb, title in VERBS.items():
        paths = [*(run / verb).glob("*.png"), *(run / verb).glob("step_*/rows.png")]
        steps = {path: step_of(path if path.parent.name == verb else path.parent) for path in paths}
        newest = max(steps.values(), default=-1)
        paths = sorted(path for path, step in steps.items() if step == newest)
        if verb == "evaluate":
            paths = [path for path in paths if not path.stem.endswith("closest")]
        for path in paths[:NEWEST]:
            gif = path.with_suffix(".gif")
            found.append(
                {
                    "verb": verb,
                    "title": title,
                    "step": newest,
                    "caption": _caption(path if path.parent.name == verb else path.parent, newest),
                    "path": path,
                    "moving": gif if gif.exists() else None,
                }
            )
    return found


def _caption(path: Path, step: int) -> str:
    """'step 6,560, seed 0' of a picture's name; its end, where that says more."""
    stem = path.stem if path.suffix else path.name
    told = re.fullmatch(r"step_\d+(?:_seed_(\d+))?(?:_([0-9a-f]{8}))?(?:_(\w+))?", stem)
    if not told:
        return stem
    seed, _, rest = told.groups()
    parts = [f"step {step:,}", f"seed {seed}" if seed else "", direction(rest) if rest else ""]
    return ", ".join(part for part in parts if part)


def newest(folder: Path, pattern: str) -> Path | None:
    """The file of the highest step; None where there is none."""
    found = sorted(folder.glob(pattern), key=lambda path: (step_of(path), path.name))
    return found[-1] if found else None
