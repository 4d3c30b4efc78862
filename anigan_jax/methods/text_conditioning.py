"""What a text GAN is conditioned on: every pair of colors -> vectors, and their draws.

A constant table holds the vectors that training needs, so that a text costs a look-up and
a run directory needs nothing beside itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import rng
from anigan_jax.config import to_json
from anigan_jax.core import Array
from anigan_jax.data import captions
from anigan_jax.data.captions import Prompt
from anigan_jax.data.labels import EYES, HAIR, known_colors
from anigan_jax.errors import UserError
from anigan_jax.networks.char_cnn_rnn import CharCNNRNN, CharEncoder
from anigan_jax.storage import safetensors

PREVIEW_TEXTS = 8
PAIRS = captions.pairs()


@dataclass(frozen=True)
class Encoder:
    """What turns a text into a vector."""

    kind: Literal["tags", "char_cnn_rnn", "precomputed"] = "tags"
    """tags: ones for the colors, embedded by the networks themselves; char_cnn_rnn: a run
    of `sjtu_text_encoder`; precomputed: vectors of a file."""
    path: str = field(default="", metadata={"location": True})
    """char_cnn_rnn: the run folder; precomputed: a safetensors file, caption -> (T,)."""
    dim: int = 256
    """Length of a precomputed vector."""
    char: CharEncoder = field(default_factory=CharEncoder)
    """char_cnn_rnn: the settings that it was trained with."""

    @property
    def length(self) -> int:
        """Length T of a text's vector."""
        tags = len(HAIR) + len(EYES)
        return {"tags": tags, "char_cnn_rnn": self.char.dim, "precomputed": self.dim}[self.kind]


def labels(pack, part: str) -> np.ndarray:
    """(N, 2) int32 class indices of hair and eyes of a part.

    Raises:
      UserError: an image has not both.
    """
    found = pack.labels(part)
    missing = int((found < 0).any(axis=1).sum())
    if missing:
        raise UserError(
            f"{missing} of {len(found)} images have not both colors; leave them out with "
            "--data.unlabeled drop, or for a pack: anigan import --unlabeled drop"
        )
    return found


def inputs(_settings, pack, part: str = "train") -> dict[str, dict[str, np.ndarray]]:
    """A method's `inputs`: 'label' (N, 2) int32, hair and eye color of each image of A."""
    return {"a": {"label": labels(pack, part)}}


def tables(encoder: Encoder, found: np.ndarray) -> dict[str, np.ndarray]:
    """The constants of a text GAN.

    Args:
      found: (N, 2) int32 labels of the training images.

    Returns:
      P = 132 pairs: 'texts' (P, W, T) float32 vectors of up to W wordings; 'wordings' (P,)
      int32, how many there are; 'counts' (P,) float32 training images of each pair;
      'preview' (8,) int32 pairs for the fixed grid; and the encoder's own arrays.

    Raises:
      UserError: the encoder's file is absent or does not fit, or the data has one pair.
    """
    counts = np.bincount(captions.pair(*found.T), minlength=len(PAIRS)).astype(np.float32)
    if (counts > 0).sum() < 2:
        raise UserError("a text GAN needs images of at least two pairs of colors")
    build = {"tags": _tags, "char_cnn_rnn": _char, "precomputed": _precomputed}[encoder.kind]
    made = build(encoder)
    mute = [str(PAIRS[i]) for i in np.flatnonzero((counts > 0) & (made["wordings"] == 0))]
    if mute:
        listed = ", ".join(mute[:5])
        raise UserError(f"{encoder.path} has no caption for {len(mute)} pairs: {listed}")
    return {**made, "counts": counts, "preview": _preview(counts)}


def encode(encoder: Encoder, constants: dict, prompts: list[Prompt]) -> np.ndarray:
    """Prompts with both colors -> (n, T) float32.

    Raises:
      UserError: a precomputed file has no vector for one of them.
    """
    if encoder.kind == "char_cnn_rnn":
        own = {name[8:]: value for name, value in constants.items() if name.startswith("encoder/")}
        # A batch of prompts repeats few texts.
        texts, place = np.unique([_readable(p) for p in prompts], return_inverse=True)
        return _scaled(_run(encoder.char, own, list(texts)), constants["scale"])[place]
    index = np.array([PAIRS.index(prompt.label) for prompt in prompts])
    texts, wordings = np.asarray(constants["texts"]), np.asarray(constants["wordings"])
    mute = [prompts[i].text for i in np.flatnonzero(wordings[index] == 0)]
    if mute:
        raise UserError(f"{encoder.path} has no caption for {', '.join(map(repr, mute))}")
    return texts[index].sum(1) / wordings[index, None]


def _readable(prompt: Prompt) -> str:
    """The prompt in words and at a length that a text encoder has been trained on."""
    text = captions.known_words(prompt.text)
    return text if len(text) <= captions.LENGTH else str(prompt.label)


def _preview(counts: np.ndarray) -> np.ndarray:
    """Pairs of the most frequent hair colors, with eyes that differ as far as they can."""
    table, used, chosen = counts.reshape(len(HAIR), len(EYES)), np.zeros(len(EYES)), []
    order = np.argsort(-table.sum(1), kind="stable")
    for hair in [h for h in order if table[h].any()][:PREVIEW_TEXTS]:
        eyes = int(np.lexsort((-table[hair], used + np.where(table[hair] > 0, 0, 1e9)))[0])
        used[eyes] += 1
        chosen.append(int(hair) * len(EYES) + eyes)
    return np.resize(np.array(chosen, np.int32), PREVIEW_TEXTS)


def two_hot(found: np.ndarray) -> np.ndarray:
    """(N, 2) class indices -> (N, 23) float32, hair before eyes."""
    hair, eyes = np.eye(len(HAIR)), np.eye(len(EYES))
    return np.concatenate([hair[found[:, 0]], eyes[found[:, 1]]], axis=1).astype(np.float32)


def all_labels() -> np.ndarray:
    """(132, 2) class indices of every pair."""
    grid = np.indices((len(HAIR), len(EYES))).reshape(2, -1)
    return grid.T.astype(np.int32)


def _tags(encoder: Encoder) -> dict[str, np.ndarray]:
    texts = two_hot(all_labels())[:, None, :]
    return {"texts": texts, "wordings": np.ones(len(PAIRS), np.int32)}


def _scale(vectors: np.ndarray) -> np.ndarray:
    """() float32 that brings the vectors' entries to a root mean square of 1, as z has."""
    return np.float32(1 / max(np.sqrt(np.mean(np.square(vectors, dtype=np.float64))), 1e-12))


def _scaled(vectors: np.ndarray, scale) -> np.ndarray:
    return (np.asarray(vectors) * np.asarray(scale)).astype(np.float32)


def _char(encoder: Encoder) -> dict[str, np.ndarray]:
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
    lines = [text for label in PAIRS for text in captions.captions(label)]
    vectors = _run(encoder.char, own, lines)
    scale = _scale(vectors)
    texts = _scaled(vectors, scale).reshape(len(PAIRS), -1, encoder.char.dim)
    return {
        "texts": texts,
        "wordings": np.full(len(PAIRS), texts.shape[1], np.int32),
        "scale": scale,
        **{f"encoder/{name}": value for name, value in own.items()},
    }


def _run(settings: CharEncoder, arrays: dict, lines: list[str]) -> np.ndarray:
    """Vectors (n, T) of texts by a trained encoder."""
    net, params = CharCNNRNN(settings, len(captions.ALPHABET)), safetensors.unflatten(arrays)
    return np.asarray(jax.jit(net.apply)({"params": params}, captions.codes(lines)))


def _precomputed(encoder: Encoder) -> dict[str, np.ndarray]:
    if not Path(encoder.path).is_file():
        raise UserError(f"no file of vectors at {encoder.path!r}; give --method.encoder.path FILE")
    groups: dict = {}
    # Sorted: safetensors lists its keys in another order in every process.
    for caption, vector in sorted(safetensors.read(Path(encoder.path)).items()):
        try:
            label = captions.parse_prompt(caption)
        except ValueError as error:
            raise UserError(f"{encoder.path}: {error}") from None
        if vector.shape != (encoder.dim,):
            raise UserError(
                f"{encoder.path}: {caption!r} has shape {vector.shape}, but "
                f"method.encoder.dim is {encoder.dim}"
            )
        if label.hair and label.eyes:
            groups.setdefault(PAIRS.index(label), []).append(vector.astype(np.float32))
    if not groups:
        raise UserError(
            f"{encoder.path} has no caption with both colors. Known colors are {known_colors()}"
        )
    most = max(map(len, groups.values()))
    texts = np.zeros((len(PAIRS), most, encoder.dim), np.float32)
    wordings = np.zeros(len(PAIRS), np.int32)
    for pair, vectors in groups.items():
        texts[pair, : len(vectors)], wordings[pair] = vectors, len(vectors)
    scale = _scale(np.concatenate([np.stack(vectors) for vectors in groups.values()]))
    return {"texts": _scaled(texts, scale), "wordings": wordings, "scale": scale}


NEVER = -jnp.inf


class Texts(NamedTuple):
    """Vectors (b, T) of a batch: the images' own texts, others, and texts between two."""

    right: Array
    wrong: Array
    between: Array


def wrong_pairs(counts: Array, pair: Array, keys: Array, rule: str) -> Array:
    """A pair of the data for each image that is never its own, (b,).

    Args:
      counts: (P,) images of each pair; at least two are positive.
      pair: (b,) the images' own pairs; keys: (b,).
      rule: 'any', or 'one_part': it differs in hair or in eyes alone, where the data has
        such a pair.
    """
    every = jnp.arange(counts.shape[0])
    hair = every[None] // len(EYES) == pair[:, None] // len(EYES)
    eyes = every[None] % len(EYES) == pair[:, None] % len(EYES)
    allowed = (counts > 0)[None] & ~(hair & eyes)
    if rule == "one_part":
        near = allowed & (hair | eyes)
        allowed = jnp.where(near.any(1, keepdims=True), near, allowed)
    logits = jnp.where(allowed, jnp.log(counts)[None], NEVER)
    return jax.vmap(jax.random.categorical)(keys, logits)


def any_pairs(counts: Array, keys: Array) -> Array:
    """A pair of the data for each key, as often as the data has it, (b,)."""
    return jax.vmap(lambda key: jax.random.categorical(key, jnp.log(counts)))(keys)


def vectors(constants: dict, pair: Array, keys: Array) -> Array:
    """One of the wordings of each pair, (b,) -> (b, T)."""
    return constants["texts"][pair, rng.below(keys, constants["wordings"][pair])]
