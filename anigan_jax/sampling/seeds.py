"""Images by their seeds: the same ones, to the bit, however many are made at once."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import operator
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anigan_jax.data.attributes import Attributes, Label
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.sampling import prompts as texts
from anigan_jax.sampling.grids import SEEDS, Model, generated, latents_of
from anigan_jax.storage import images as record

MOST = 1_000_000
"""Seeds at once."""
CHUNK = 256
"""Images in memory at once, where they become files."""
Draw = Callable[[list[int], Prompt | None], np.ndarray]
"""Keys, and a prompt or none -> (n, H, W, 3 or 4) uint8."""
LABELS = "tags.csv"


def read(text: str) -> list[int]:
    """The seeds that a text lists, '0-99,7', each once, in that order.

    Raises:
      UserError: it is no such list, or one of too many or too large seeds.
    """
    found: dict[int, None] = {}
    for word in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?", word)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if first > last:
            raise UserError(f"--seeds {text!r} is not a list of seeds, such as 0-99 or 3,7,20-29")
        if last >= SEEDS:
            raise UserError(f"--seeds has {last}; a seed must be below 2**32, {SEEDS}")
        if len(found) + last - first >= MOST:
            raise UserError(f"--seeds {text!r} lists more than {MOST:,} seeds; split it")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def checked(seeds: Iterable[int], name: str = "seeds") -> list[int]:
    """Seeds that a caller gives.

    Raises:
      UserError: they are none, or not whole numbers from 0 to 2**32 - 1.
    """
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise UserError(f"{name} is {seeds!r}; it must be whole numbers, such as range(4)")
    found = [whole(seed, name) for seed in seeds]
    if not found:
        raise UserError(f"{name} is empty; give one or more")
    if wrong := [seed for seed in found if not 0 <= seed < SEEDS]:
        raise UserError(f"{name} has {wrong[0]}; a seed must be 0 to 2**32 - 1")
    return found


def whole(value: Any, name: str) -> int:
    """A whole number that a caller gives, NumPy's too.

    Raises:
      UserError: it is none.
    """
    with contextlib.suppress(TypeError):
        if not isinstance(value, bool):
            return operator.index(value)
    raise UserError(f"{name} is {value!r}; it must be a whole number")


def made(model: Model, seeds: Sequence[int], prompt: Prompt | None = None) -> np.ndarray:
    """(n, H, W, 3) uint8, the first image of each seed, which depends on no other seed.

    Args:
      seeds: n >= 1 integers, 0 to 2**32 - 1.
      prompt: what all of them show; None: what the training images do, drawn by each seed.

    Raises:
      UserError: the run generates nothing, or reads no text and is given a prompt.
    """
    return _drawn(model, seeds, _asked(model, seeds, prompt))


def _asked(model: Model, seeds: Sequence[int], prompt: Prompt | None) -> list[Prompt] | None:
    """What the image of each seed shows, a class of every attribute; None where G reads no text."""
    if model.texts is None and prompt is None:
        return None
    known = texts.need_texts(model)
    if prompt is None:
        return [one for seed in seeds for one in texts.from_data(known, 1, seed)]
    return [texts.completed(known, prompt, seed, 0) for seed in seeds]


def _drawn(model: Model, seeds: Sequence[int], told: list[Prompt] | None) -> np.ndarray:
    text = texts.need_texts(model).encode(told) if told else None
    return generated(model, latents_of(model.method, seeds), text)


def write(
    model: Model, seeds: Sequence[int], prompts: list[Prompt], folder: Path, *, keep: bool = False
) -> int:
    """Writes a PNG for each seed, named by it: 0007.png; the rest as `save`.

    Where G reads texts, tags.csv says what each image shows, as `anigan import` reads it.
    """
    names, shown = {seed: f"{seed:04d}" for seed in seeds}, {}

    def draw(part: list[int], prompt: Prompt | None) -> np.ndarray:
        told = _asked(model, part, prompt)
        for seed, one in zip(part, told or (), strict=bool(told)):
            shown[_file(names[seed], prompt)] = one.label
        return _drawn(model, part, told)

    count = save(names, prompts, folder, draw, keep=keep)
    if model.texts:
        _add_labels(folder / LABELS, model.texts.attributes, shown)
    return count


def _add_labels(path: Path, attributes: Attributes, shown: dict[str, Label]) -> None:
    """Adds what files show to a table of their classes; what is there already stays."""
    header = ["file", *(a.name for a in attributes)]
    unreadable = contextlib.suppress(IsADirectoryError, UnicodeDecodeError, csv.Error)
    with unreadable, path.open("a+b") as file:
        # Others may be making further seeds.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        held = file.read()
        there = list(csv.reader(io.StringIO(held.decode(), newline="")))
        if there[:1] in ([], [header]):
            file.write(_more(held, there or [header], attributes, shown).encode())
            return
    print(f"note: {path} has other columns and stays as it is", file=sys.stderr)


def _more(held: bytes, there: list[list[str]], attributes: Attributes, shown) -> str:
    """What a table lacks: its header, the end of its last line, rows."""
    text, known = io.StringIO(), {row[0] for row in there if row}
    table = csv.writer(text, lineterminator="\n")
    if not held:
        table.writerows(there)
    elif not held.endswith(b"\n"):
        text.write("\n")
    for file, label in shown.items():
        if file not in known:
            # Of a tag whether it is there, as the import reads it.
            named = ((a, label[a.name]) for a in attributes)
            table.writerow([file, *(str(int(c == a.name)) if a.is_tag else c for a, c in named)])
    return text.getvalue()


def _file(name: str, prompt: Prompt | None) -> str:
    """Of an image: 0007.png, of a prompt 0007_blue_hair_HASH.png."""
    return f"{name}{texts.suffix([prompt] if prompt else [])}.png"


def save(
    names: dict[int, str], prompts: list[Prompt], folder: Path, draw: Draw, *, keep: bool = False
) -> int:
    """Writes a PNG for each key by its name; of each prompt, NAME_blue_hair_HASH.png.

    Args:
      draw: gives the images of some of the keys, of a prompt or of none.
      keep: other pictures that are there under these names stay.

    Raises:
      UserError: there is one.

    Returns:
      How many were written.
    """
    groups = [
        (prompt, {key: folder / _file(name, prompt) for key, name in names.items()})
        for prompt in prompts or [None]
    ]
    # What would be refused is looked at before anything is written.
    for there in (True, False):
        for prompt, files in groups:
            listed = [key for key, file in files.items() if file.exists() == there]
            for at in range(0, len(listed), CHUNK):
                part = listed[at : at + CHUNK]
                for key, image in zip(part, draw(part, prompt), strict=True):
                    record.save_image(Image.fromarray(image), files[key], keep=keep)
    return len(groups) * len(names)


def sheet(model: Model, seeds: Sequence[int], prompts: list[Prompt]) -> Image.Image:
    """All of them as one picture: a grid; with prompts, a row of each and a column a seed."""
    if not prompts:
        return record.grid(made(model, seeds))
    images = np.stack([made(model, seeds, prompt) for prompt in prompts])
    return record.table(images, [prompt.text for prompt in prompts], [str(s) for s in seeds])


def stem(model: Model, text: str, prompts: list[Prompt]) -> str:
    """Name of a sheet of the seeds that a text lists."""
    words = re.sub(r"\s", "", text).replace(",", "_")
    if len(words) > 40:
        words = f"{words[:30]}_{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    step = int(model.state.step)
    return f"step_{step:09d}_seeds_{words}{model.tag}{texts.suffix(prompts)}"
