"""What a text GAN is conditioned on: combinations of classes -> vectors, and their draws.

A constant table holds the vectors that training needs, so that a text costs a look-up and
a run directory needs nothing beside itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import core, rng
from anigan_jax.config import to_json
from anigan_jax.core import Array
from anigan_jax.data import attributes as known
from anigan_jax.data import captions
from anigan_jax.data.attributes import DEFAULT, Attributes
from anigan_jax.data.captions import Prompt
from anigan_jax.errors import UserError
from anigan_jax.networks.char_cnn_rnn import CharCNNRNN, CharEncoder
from anigan_jax.runtime.batching import in_batches
from anigan_jax.storage import safetensors

PREVIEW_TEXTS = 8
BATCH = 16
COMBINATIONS = "combinations"


@dataclass(frozen=True)
class Encoder:
    """What turns a text into a vector."""

    kind: Literal["tags", "char_cnn_rnn", "precomputed"] = "tags"
    """tags: one-hot classes of each attribute, embedded by the networks themselves;
    char_cnn_rnn: a run of `sjtu_text_encoder`; precomputed: vectors from a file."""
    path: str = field(default="", metadata={"location": True})
    """char_cnn_rnn: the run folder; precomputed: a safetensors file, caption -> (T,)."""
    dim: int = 256
    """Length of a precomputed vector."""
    char: CharEncoder = field(default_factory=CharEncoder)
    """char_cnn_rnn: the settings it was trained with."""

    @property
    def length(self) -> int:
        """Length T of a text's vector; of tags, where the attributes are hair and eyes."""
        tags = sum(len(a.classes) for a in DEFAULT)
        return {"tags": tags, "char_cnn_rnn": self.char.dim, "precomputed": self.dim}[self.kind]


def labels(pack, part: str) -> np.ndarray:
    """(N, A) int32 class indices of a part, of each attribute.

    Raises:
      UserError: the label of an image leaves one open.
    """
    found = pack.labels(part)
    missing = (found < 0).any(axis=0)
    if missing.any():
        names = ", ".join(pack.attributes[i].name for i in np.flatnonzero(missing))
        count = int((found < 0).any(axis=1).sum())
        raise UserError(
            f"{count} of {len(found)} images have no class of {names}; leave them out with "
            "--data.unlabeled drop, or for a pack: anigan import --unlabeled drop"
        )
    return found


def inputs(_settings, pack, part: str = "train") -> dict[str, dict[str, np.ndarray]]:
    """A method's `inputs`: 'label' (N, A) int32, classes of each image of A."""
    return {"a": {"label": labels(pack, part)}}


def about(attributes: Attributes, found: np.ndarray) -> dict[str, np.ndarray]:
    """The constants that say what a run is asked by: {} for hair and eyes as usual.

    Args:
      found: (N, A) labels of the training images.
    """
    sizes = tuple(len(a.classes) for a in attributes)
    each = known.combinations(sizes, found)
    many = {} if len(each) == np.prod(sizes, dtype=float) else {COMBINATIONS: each}
    return {**known.to_arrays(attributes), **many}


def combinations(constants: dict):
    """(P, A) int32 class indices: all there are in order, or those that the data has."""
    if COMBINATIONS in constants:
        return constants[COMBINATIONS]
    return known.combinations(known.sizes_of(constants))


def place(constants: dict, label: Array) -> Array:
    """Index (b,) among `combinations` of labels (b, A) of the training data."""
    if COMBINATIONS in constants:
        return (constants[COMBINATIONS][None] == label[:, None]).all(-1).argmax(1)
    index = label[:, 0]
    for column, size in enumerate(known.sizes_of(constants)[1:], start=1):
        index = index * size + label[:, column]
    return index


def tables(
    encoder: Encoder, found: np.ndarray, attributes: Attributes = DEFAULT
) -> dict[str, np.ndarray]:
    """The constants of a text GAN.

    Args:
      found: (N, A) int32 labels of the training images.

    Returns:
      Of P combinations: 'texts' (P, W, T) float32 vectors of up to W wordings; 'wordings'
      (P,) int32, how many there are; 'counts' (P,) float32 training images of each;
      'preview' (8,) int32 combinations for the fixed grid; the encoder's own arrays; and
      what `about` gives.

    Raises:
      UserError: the encoder's file is absent or does not fit, or the images are all alike.
    """
    told = about(attributes, found)
    rows = combinations(told)
    counts = np.bincount(rows_of(rows, found), minlength=len(rows)).astype(np.float32)
    if (counts > 0).sum() < 2:
        raise UserError("a text GAN needs images of at least two combinations of classes")
    build = {"tags": _tags, "char_cnn_rnn": _char, "precomputed": _precomputed}[encoder.kind]
    made = build(encoder, attributes, rows)
    mute = np.flatnonzero((counts > 0) & (made["wordings"] == 0))
    if len(mute):
        some = [known.say(attributes, known.label_of(attributes, rows[i])) for i in mute[:5]]
        raise UserError(
            f"{encoder.path} has no caption for {len(mute)} combinations: {', '.join(some)}"
        )
    return {**made, "counts": counts, "preview": _preview(rows, counts), **told}


def rows_of(rows: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Index (N,) among rows (P, A) of each of (N, A); -1 where it is none of them."""
    index = {tuple(each): i for i, each in enumerate(np.asarray(rows).tolist())}
    return np.array([index.get(tuple(each), -1) for each in np.asarray(found).tolist()])


def encode(encoder: Encoder, constants: dict, prompts: list[Prompt]) -> np.ndarray:
    """Prompts with a class of every attribute -> (n, T) float32, also where no image has all.

    Raises:
      UserError: a precomputed file has no vector for one of them.
    """
    attributes = known.of_arrays(constants)
    asked = np.array([known.row(attributes, prompt.label) for prompt in prompts])
    if encoder.kind == "tags":
        return known.one_hot(attributes, asked)
    if encoder.kind == "char_cnn_rnn":
        own = {name[8:]: value for name, value in constants.items() if name.startswith("encoder/")}
        # A batch of prompts repeats few texts.
        lines = [_readable(p, attributes) for p in prompts]
        texts, at = np.unique(lines, return_inverse=True)
        vectors = _run(encoder.char, own, list(texts), BATCH)
        return _scaled(vectors, constants["scale"])[at]
    index = rows_of(combinations(constants), asked)
    texts, wordings = np.asarray(constants["texts"]), np.asarray(constants["wordings"])
    mute = [prompts[i].text for i in np.flatnonzero((index < 0) | (wordings[index] == 0))]
    if mute:
        raise UserError(f"{encoder.path} has no caption for {', '.join(map(repr, mute))}")
    return texts[index].sum(1) / wordings[index, None]


def askable(encoder: Encoder, constants: dict) -> core.Texts:
    """What a generator that reads the texts of `tables` can be asked for."""
    counts, wordings = (np.asarray(constants[name]) for name in ("counts", "wordings"))
    rows = np.asarray(combinations(constants))
    own = functools.partial(encode, encoder, constants)
    return core.Texts(own, counts, wordings, known.of_arrays(constants), rows)


def preview(constants: dict, keys: Array, z_dim: int) -> tuple[Array, Array]:
    """Latents (m, Z) and vectors (m, T) of fixed texts (rows) at fixed latents (columns)."""
    columns = keys.shape[0] // PREVIEW_TEXTS
    z = rng.normal(keys[:columns], (z_dim,))
    shown = constants["texts"][constants["preview"], 0]
    return jnp.tile(z, (PREVIEW_TEXTS, 1)), jnp.repeat(shown, columns, axis=0)


def _readable(prompt: Prompt, attributes: Attributes) -> str:
    """The prompt in words and at a length that a text encoder has been trained on."""
    text = captions.known_words(prompt.text)
    if prompt.passed_over or len(text) > captions.LENGTH:
        return known.say(attributes, prompt.label)
    return text


def _preview(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Combinations of the first attribute's most frequent classes that else differ as they can."""
    first, chosen = rows[:, 0], []
    used = [np.zeros(rows[:, column].max() + 1) for column in range(1, rows.shape[1])]
    order = np.argsort(-np.bincount(first, counts), kind="stable")
    for group in [g for g in order if counts[first == g].any()][:PREVIEW_TEXTS]:
        those = np.flatnonzero((first == group) & (counts > 0))
        seen = sum((u[rows[those, c]] for c, u in enumerate(used, 1)), np.zeros(len(those)))
        best = those[np.lexsort((-counts[those], seen))[0]]
        for column, u in enumerate(used, 1):
            u[rows[best, column]] += 1
        chosen.append(int(best))
    return np.resize(np.array(chosen, np.int32), PREVIEW_TEXTS)


def _tags(encoder: Encoder, attributes: Attributes, rows: np.ndarray) -> dict[str, np.ndarray]:
    texts = known.one_hot(attributes, rows)[:, None, :]
    return {"texts": texts, "wordings": np.ones(len(rows), np.int32)}


def _scale(vectors: np.ndarray) -> np.ndarray:
    """() float32 that brings the vectors' entries to a root mean square of 1, as z has."""
    return np.float32(1 / max(np.sqrt(np.mean(np.square(vectors, dtype=np.float64))), 1e-12))


def _scaled(vectors: np.ndarray, scale) -> np.ndarray:
    return (np.asarray(vectors) * np.asarray(scale)).astype(np.float32)


def _char(encoder: Encoder, attributes: Attributes, rows: np.ndarray) -> dict[str, np.ndarray]:
    path = Path(encoder.path) / safetensors.WEIGHTS
    if not encoder.path or not path.is_file():
        where = encoder.path or "runs/text_encoder"
        raise UserError(
            f"no trained text encoder at {encoder.path!r}; make one with `anigan train "
            f"sjtu_text_encoder --workdir {where}` on the same data, or take "
            "--method.encoder.kind tags"
        )
    arrays = safetensors.read(path)
    config = safetensors.metadata(path).get("config", {})
    if config.get("method", {}).get("text") != to_json(encoder.char):
        raise UserError(f"{path} is not a text encoder of the settings in method.encoder.char")
    prefix = "params/d/text/"
    own = {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
    vectors = _run(encoder.char, own, lines_of(attributes, rows))
    scale = _scale(vectors)
    texts = _scaled(vectors, scale).reshape(len(rows), -1, encoder.char.dim)
    return {
        "texts": texts,
        "wordings": np.full(len(rows), texts.shape[1], np.int32),
        "scale": scale,
        **{f"encoder/{name}": value for name, value in own.items()},
    }


def lines_of(attributes: Attributes, rows: np.ndarray) -> list[str]:
    """Every wording of combinations (P, A), one after the other."""
    labels = (known.label_of(attributes, row) for row in rows)
    return [text for label in labels for text in captions.captions(label, attributes)]


def _run(
    settings: CharEncoder, arrays: dict, lines: list[str], batch: int | None = None
) -> np.ndarray:
    """Vectors (n, T) of texts by a trained encoder.

    Args:
      batch: texts at once, always as many, so that none depends on the others; None: all.
    """
    run, params = _traced(settings), safetensors.unflatten(arrays)
    rows = captions.codes(lines)
    return in_batches(lambda part: run({"params": params}, part), rows, batch or len(rows))


@functools.lru_cache(maxsize=4)
def _traced(settings: CharEncoder) -> Callable:
    """The encoder as a function that is traced once, however many prompts are asked."""
    return jax.jit(CharCNNRNN(settings, len(captions.ALPHABET)).apply)


def _precomputed(
    encoder: Encoder, attributes: Attributes, rows: np.ndarray
) -> dict[str, np.ndarray]:
    if not Path(encoder.path).is_file():
        raise UserError(f"no file of vectors at {encoder.path!r}; give --method.encoder.path FILE")
    groups: dict = {}
    absent = {a.name: a.classes[0] for a in attributes if a.is_tag}
    # Sorted: safetensors lists its keys in another order in every process.
    for caption, vector in sorted(safetensors.read(Path(encoder.path)).items()):
        try:
            read = captions.parse_prompt(caption, attributes)
            if read.passed_over:
                raise ValueError("; ".join(read.passed_over))
        except ValueError as error:
            raise UserError(f"{encoder.path}: {error}") from None
        if vector.shape != (encoder.dim,):
            raise UserError(
                f"{encoder.path}: {caption!r} has shape {vector.shape}, but "
                f"method.encoder.dim is {encoder.dim}"
            )
        row = known.row(attributes, {**absent, **read.label})
        groups.setdefault(row, []).append(vector.astype(np.float32))
    found = {i: groups[row] for i, row in enumerate(map(tuple, rows.tolist())) if row in groups}
    if not found:
        raise UserError(
            f"{encoder.path} has no caption with a class of each attribute. Known classes: "
            f"{captions.known_classes(attributes)}"
        )
    most = max(map(len, found.values()))
    texts = np.zeros((len(rows), most, encoder.dim), np.float32)
    wordings = np.zeros(len(rows), np.int32)
    for i, vectors in found.items():
        texts[i, : len(vectors)], wordings[i] = vectors, len(vectors)
    scale = _scale(np.concatenate([np.stack(vectors) for vectors in found.values()]))
    return {"texts": _scaled(texts, scale), "wordings": wordings, "scale": scale}


NEVER = -jnp.inf


class Texts(NamedTuple):
    """Vectors (b, T) of a batch: the images' own texts, others, and texts between two."""

    right: Array
    wrong: Array
    between: Array


def wrong_texts(rows: Array, counts: Array, own: Array, keys: Array, rule: str) -> Array:
    """A combination of the data for each image that is never its own, (b,).

    Args:
      rows: (P, A) combinations; counts: (P,) images of each, at least two positive.
      own: (b,) the images' own; keys: (b,).
      rule: 'any', or 'one_part': it differs in one attribute alone, where the data has such
        a one; 'each_part': the same, and in each attribute equally often.
    """
    rows = jnp.asarray(rows)
    parts = rows[None] != rows[own][:, None]
    differs = parts.sum(-1)
    allowed = (counts > 0)[None] & (differs > 0)
    logits = jnp.log(counts)[None]
    if rule != "any":
        near = allowed & (differs == 1)
        allowed = jnp.where(near.any(1, keepdims=True), near, allowed)
        if rule == "each_part":
            # Else of hair, with 11 other classes, and glasses, with one, D is shown mostly hair.
            of_part = ((near * counts)[..., None] * parts).sum(1, keepdims=True)
            logits = logits - jnp.where(near, jnp.log((parts * of_part).sum(-1)), 0.0)
    logits = jnp.where(allowed, logits, NEVER)
    return jax.vmap(jax.random.categorical)(keys, logits)


def any_texts(counts: Array, keys: Array) -> Array:
    """A combination of the data for each key, as often as the data has it, (b,)."""
    return jax.vmap(lambda key: jax.random.categorical(key, jnp.log(counts)))(keys)


def vectors(constants: dict, index: Array, keys: Array) -> Array:
    """One of the wordings of each combination, (b,) -> (b, T)."""
    return constants["texts"][index, rng.below(keys, constants["wordings"][index])]
