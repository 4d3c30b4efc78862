"""Keys: no two draws of a run share one, whatever the stream, step, update, repeat or example."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from tiny import FULL

from anigan_jax import rng
from anigan_jax.sampling import grids
from anigan_jax.state import init_state
from anigan_jax.training import artifacts, input

RAW = rng.root_key(0)
EXAMPLES = jnp.arange(3)
PLACES = list(itertools.product((0, 1, 2), (0, 1, 8, 9), (0, 1, 2)))  # step, position, repeat


def rows(keys) -> list[bytes]:
    """The bits of keys, one after the other."""
    return [row.tobytes() for row in np.asarray(jax.random.key_data(keys)).reshape(-1, 2)]


def update(step, position, repeat):
    none = jnp.zeros((len(EXAMPLES), 0))
    return rng.update_keys(RAW, jnp.int32(step), position, repeat, EXAMPLES, none)


def test_keys_of_updates_are_all_distinct():
    """Over steps, positions, repeats and examples; those of the whole batch are others still."""
    found = []
    for place in PLACES:
        keys = update(*place)
        found += rows(keys.example) + rows(keys.shared)
    assert len(set(found)) == len(found) == len(PLACES) * (len(EXAMPLES) + 1)


def test_keys_of_updates_are_those_of_the_seed():
    found = [update(2, 1, 0), update(2, 1, 0)]
    assert rows(found[0].example) == rows(found[1].example)
    other = rng.update_keys(rng.root_key(1), jnp.int32(2), 1, 0, EXAMPLES, jnp.zeros((3, 0)))
    assert not set(rows(found[0].example)) & set(rows(other.example))
    assert rows(found[0].shared) != rows(other.shared)


def test_an_example_keeps_its_key_on_any_device():
    keys = rng.update_keys(RAW, jnp.int32(1), 8, 2, EXAMPLES[2:], jnp.zeros((1, 0)))
    assert rows(keys.example) == rows(update(1, 8, 2).example)[2:]
    assert rows(keys.shared) == rows(update(1, 8, 2).shared)


def test_streams_never_meet():
    """With none, one, two or three indices folded in."""
    places = [(), *itertools.product(range(3)), *itertools.product(range(3), repeat=2)]
    places += itertools.product(range(3), repeat=3)
    found = [rows(rng.stream_key(RAW, s, *place))[0] for s in rng.Stream for place in places]
    assert len(set(found)) == len(found)


def test_numbers_of_streams_are_a_promise():
    """Another number is another run of every seed."""
    assert {s.name: int(s) for s in rng.Stream} == {
        "INIT": 0,
        "SHARED": 1,
        "EXAMPLE": 2,
        "NOISE": 3,
        "DATA": 4,
        "PREVIEW": 5,
        "SAMPLE": 6,
        "PROJECT": 7,
    }
    assert sorted(rng.Salt) == list(range(len(rng.Salt)))


def test_first_weights_previews_samples_and_training_draw_apart(monkeypatch):
    """Each root of draws, as those who draw ask for it."""
    asked = []

    def kept(raw, stream, *indices):
        asked.append((stream.name, len(indices)))
        return own(raw, stream, *indices)

    own = rng.stream_key
    method = FULL.method.make(None)
    monkeypatch.setattr(rng, "stream_key", kept)
    grids._normal.clear_cache()
    jax.eval_shape(lambda: init_state(FULL, method, {}))
    artifacts.previewer(SimpleNamespace(method=method, constants={}, config=FULL), None)
    grids.latents(method, 2, 0)
    rng.latents(RAW, jnp.int32(0), 0, 0, EXAMPLES, 2)
    update(0, 0, 0)
    images = {"a": {"image": jnp.zeros((3, 2, 2, 3), jnp.uint8)}}
    input.to_batch(images, RAW, jnp.int32(0), EXAMPLES, True)
    assert asked == [
        ("INIT", 0),
        ("PREVIEW", 0),
        ("SAMPLE", 0),
        ("NOISE", 3),
        ("EXAMPLE", 3),
        ("SHARED", 3),
        ("DATA", 1),
    ]


def test_draws_of_the_data_are_their_own():
    """Two batches share no key; nor do a batch and an update."""
    images = {"a": {"image": jnp.zeros((3, 2, 2, 3), jnp.uint8)}}
    found = [input.to_batch(images, RAW, jnp.int32(i), EXAMPLES, False)["keys"] for i in range(3)]
    found = [row for keys in found for row in rows(keys)]
    assert len(set(found)) == 9
    assert not set(found) & set(rows(update(0, 0, 0).example))


def test_children_of_a_key_are_apart():
    keys = jax.random.split(jax.random.key(0), 4)
    found = [row for salt in rng.Salt for row in rows(rng.children(keys, salt))]
    assert len(set(found)) == len(found)
    assert not set(found) & set(rows(keys))
