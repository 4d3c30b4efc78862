"""Pictures of text GANs: prompts, the table of classes, paths between texts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from anigan_jax.core import Texts
from anigan_jax.data import attributes as known
from anigan_jax.data import captions
from anigan_jax.data.attributes import Label
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.runtime import environment
from anigan_jax.sampling.grids import Model, Walk, generated, latents, stem, suffix_of
from anigan_jax.storage import images as record
from anigan_jax.storage.run_dir import out_dir


def need_texts(model: Model) -> Texts:
    """What the generator can be asked for; refuses a run whose generator sees no text."""
    if model.texts is None:
        raise UserError("this run makes images without texts; prompts need a text GAN")
    return model.texts


def example(texts: Texts) -> str:
    """The combination of classes that most training images have, in words."""
    most = int(np.argmax(texts.frequencies))
    return of_row(texts.attributes, texts.combinations[most]).text


def read(model: Model, lines: list[str], where: str) -> list[Prompt]:
    """`understood`, in the classes that the run knows.

    Raises:
      UserError: a line of which nothing is understood, or G reads no text.
    """
    return understood(need_texts(model).attributes, lines, where)


def understood(attributes: known.Attributes, lines: list[str], where: str) -> list[Prompt]:
    """Prompts, one a line, in classes of attributes; warns of what is passed over.

    Raises:
      UserError: a line of which nothing is understood.
    """
    found = captions.read_prompts(lines, where, attributes)
    lost = dict.fromkeys(said for prompt in found for said in prompt.passed_over)
    if lost:
        print(f"note: {where}: ignored: {'; '.join(lost)}", file=sys.stderr)
    return found


def lines_of(file: Path) -> list[str]:
    """Lines of a file of prompts: of the user's, or of those in configs/prompts by its name.

    Raises:
      UserError: there is none.
    """
    folder = environment.config_folder() / "prompts"
    ours = folder / f"{file.name.removesuffix('.txt')}.txt"
    if not file.exists() and file.parent == Path() and ours.is_file():
        file = ours
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        have = ", ".join(sorted(path.stem for path in folder.glob("*.txt")))
        raise UserError(
            f"--prompts {file} cannot be read: {error}; by name: {have}; a prompt is --prompt TEXT"
        ) from None


def completed(texts: Texts, prompt: Prompt, seed: int, number: int) -> Prompt:
    """The prompt with what it leaves open, a pure function of the seed and the number."""
    data = texts.attributes, texts.combinations, texts.frequencies
    return captions.complete(prompt, *data, seed, number)


def ask(model: Model, prompts: list[Prompt], n: int, seed: int, *, same=True):
    """`n` images for each prompt; with `same`, image i has one latent for all prompts.

    What a prompt leaves open is drawn for each image, as often as the training data has it; with
    `same` for image i whatever else is asked, otherwise independently for every image.

    Returns:
      Images (P, n, H, W, 3) uint8, and what was asked for, (P n, A) class indices.
    """
    texts = need_texts(model)
    full = [
        completed(texts, prompt, seed, j if same else i * n + j)
        for i, prompt in enumerate(prompts)
        for j in range(n)
    ]
    if same:
        z = np.tile(latents(model.method, n, seed), (len(prompts), 1))
    else:
        z = latents(model.method, n * len(prompts), seed)
    images = generated(model, z, texts.encode(full))
    asked = np.array([known.row(texts.attributes, prompt.label) for prompt in full])
    return images.reshape(len(prompts), n, *images.shape[1:]), asked


def suffix(prompts: list[Prompt]) -> str:
    """What tells pictures of other prompts apart; '' for none."""
    texts = [prompt.text for prompt in prompts]
    return suffix_of(texts[0], texts) if texts else ""


def texts_for(model: Model, prompt: Prompt | None, n: int, seed: int) -> np.ndarray | None:
    """(n, T) texts of a prompt, what it leaves open drawn for each; None: `texts_of_data`."""
    if prompt is None:
        return texts_of_data(model, n, seed)
    texts = need_texts(model)
    return texts.encode([completed(texts, prompt, seed, i) for i in range(n)])


def texts_of_data(model: Model, n: int, seed: int) -> np.ndarray | None:
    """(n, T) texts as often as the training data has them; None where G takes none."""
    return model.texts.encode(from_data(model.texts, n, seed)) if model.texts else None


def from_data(texts: Texts, n: int, seed: int) -> list[Prompt]:
    """`n` prompts as often as the training data has them."""
    counts = np.asarray(texts.frequencies, np.float64)
    draw = np.random.default_rng(seed).choice(len(counts), n, p=counts / counts.sum())
    return [of_row(texts.attributes, texts.combinations[i]) for i in draw]


def of_row(attributes: known.Attributes, row: np.ndarray) -> Prompt:
    """The prompt for class indices (A,); -1 is left open."""
    label = known.label_of(attributes, row)
    return Prompt(known.say(attributes, label), label)


def table(
    model: Model,
    run: Path,
    seed: int,
    rows: str = "",
    columns: str = "",
    prompt: Prompt | None = None,
    out: Path | None = None,
) -> Path:
    """Every class of an attribute with every one of another, one latent for all.

    Classes that the training data has never shown are left out. The other attributes are the
    same in all cells, where there are such texts: what the prompt names, and the rest as one image
    of the data has it.

    Args:
      rows, columns: names of attributes; '': the first that is left.
      prompt: of other attributes.
      out: the picture; None: in RUN/out/table.

    Raises:
      UserError: G reads no text; or there is no such attribute, or it is named twice.
    """
    texts = need_texts(model)
    named = prompt.label if prompt else {}
    left, right = _lines(texts, rows, columns, named)
    same = completed(texts, Prompt("", named), seed, 0).label
    asked = [{**one, **other} for one in left for other in right]
    full = [Prompt(known.say(texts.attributes, x), x) for x in ({**same, **own} for own in asked)]
    has = _has_text(texts, full)
    # Where there are texts of some combinations alone: those that come nearest.
    for i in np.flatnonzero(~has):
        full[i] = completed(texts, Prompt("", {**named, **asked[i]}), seed, i)
        (has[i],) = _has_text(texts, [full[i]])
    if not has.any():
        # What is lacking is said.
        texts.encode(full)
    made, _ = ask(model, [p for p, told in zip(full, has, strict=True) if told], 1, seed)
    # Combinations that a file of vectors has no caption for stay white.
    images = np.full((len(full), *made.shape[2:]), 255, np.uint8)
    images[has] = made[:, 0]
    images = images.reshape(len(left), len(right), *images.shape[1:])
    titles = ([known.say(texts.attributes, one) for one in line] for line in (left, right))
    page = record.table(images, *titles)
    # Of one that was named the other, too: it is in the rows or in the columns.
    lines = [next(iter(line[0]), "") for line in (left, right)] if rows or columns else []
    name = "_".join(filter(None, (stem(model, seed), *lines))).replace(" ", "_")
    name = name.replace("/", "_") + suffix([prompt] if prompt else [])
    place = out or out_dir(run, "table") / f"{name}.png"
    return record.save_image(page, place)


def _lines(texts: Texts, rows: str, columns: str, named: Label) -> tuple[list[Label], list[Label]]:
    """Labels of one attribute each, for the rows of a table and for its columns."""
    names = [a.name for a in texts.attributes]
    free = [name for name in names if name not in named]
    for name in filter(None, (rows, columns)):
        if name not in names:
            raise UserError(f"this run knows no attribute {name!r}; it has {', '.join(names)}")
    rows = rows or next((name for name in free if name != columns), "")
    columns = columns or next((name for name in free if name != rows), "")
    for name in (rows, columns):
        if name in named or not (rows or columns):
            taken = f"{name} is in the rows or columns" if name else "no attribute is left"
            raise UserError(
                f"the prompt names {', '.join(named)}: {taken}; the table shows every class of "
                f"one or two attributes of {', '.join(names)}; name the others in the prompt"
            )
    if rows == columns:
        raise UserError(f"the rows and the columns of the table are both {rows!r}")
    seen = texts.combinations[texts.frequencies > 0]

    def line(name: str) -> list[Label]:
        at = names.index(name)
        classes = texts.attributes[at].classes
        return [{name: classes[i]} for i in np.unique(seen[:, at])]

    return line(rows) if rows else [{}], line(columns) if columns else [{}]


def _has_text(texts: Texts, prompts: list[Prompt]) -> np.ndarray:
    """(n,) whether the encoder has a text, as a file of vectors may not."""
    try:
        texts.encode(prompts)
    except UserError:
        each = [_has_text(texts, [prompt]) for prompt in prompts] if len(prompts) > 1 else []
        return np.concatenate(each) if each else np.array([False])
    return np.ones(len(prompts), bool)


def between(model: Model, ends: list[Prompt], rows: int, frames: int, seed: int) -> Walk:
    """From prompt to prompt at fixed latents, and back; a sheet of about ten steps.

    Args:
      ends: two prompts or more.
    """
    texts = need_texts(model)
    full = [completed(texts, prompt, seed, i) for i, prompt in enumerate(ends)]
    told, parts = texts.encode(full), len(ends) - 1
    z = latents(model.method, rows, seed)

    def draw(steps: int) -> np.ndarray:
        place = np.linspace(0, parts, steps, dtype=np.float32)
        # Each prompt is a frame of its own.
        place[np.rint(np.linspace(0, steps - 1, parts + 1)).astype(int)] = np.arange(parts + 1)
        place = np.tile(place, rows)
        part = np.minimum(place.astype(int), parts - 1)
        share = (place - part.astype(np.float32))[:, None]
        path = (1 - share) * told[part] + share * told[part + 1]
        images = generated(model, np.repeat(z, steps, axis=0), path)
        return images.reshape(rows, steps, *images.shape[1:])

    moving = np.swapaxes(draw(frames), 0, 1)
    pictures = [np.asarray(record.grid(frame, columns=rows)) for frame in moving]
    each = max(1, 9 // parts)
    columns = [text for prompt in full for text in (prompt.text, *[""] * (each - 1))]
    steps = parts * each + 1
    page = record.table(draw(steps), [""] * rows, columns[:steps])
    return Walk([*pictures, *pictures[-2:0:-1]], page, stem(model, seed) + suffix(ends))


def nearest(texts: Texts, text: np.ndarray) -> np.ndarray:
    """(n, A) class indices of the combinations whose texts are nearest to (n, T)."""
    rows = texts.combinations[texts.wordings > 0]
    every = texts.encode([of_row(texts.attributes, row) for row in rows])
    # Without the length of `text`, which is the same for all.
    apart = np.square(every).sum(1) - 2 * text @ every.T
    return rows[apart.argmin(1)]


def one_text(model: Model, prompts: list[Prompt], seed: int) -> np.ndarray | None:
    """(T,) of the first prompt, or of one that the data has; None where G takes no text."""
    if model.texts is None and not prompts:
        return None
    texts = need_texts(model)
    prompt = (prompts or from_data(texts, 1, seed))[0]
    return texts.encode([completed(texts, prompt, seed, 0)])[0]
