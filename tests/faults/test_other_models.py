"""Rows 22 and 23: checkpoints of another model, and of another version."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import saves
from tiny import CYCLE, FULL

from anigan_jax.errors import UserError
from anigan_jax.state import init_state
from anigan_jax.storage import checkpoint
from anigan_jax.storage import manifest as checkpoint_files

LIKE = saves.state(0)


def tree_of(config):
    """The tree of a config's state, without its values."""
    method = config.method.make()
    return jax.eval_shape(lambda: init_state(config, method, {}))


def swapped(tree):
    return tree.replace(params={"g": tree.params["d"], "d": tree.params["g"]})


def other(**changes):
    """The tree of FULL with another setting of its networks."""
    networks = {
        name: dataclasses.replace(getattr(FULL.method, name), **change)
        for name, change in changes.items()
    }
    config = dataclasses.replace(FULL, method=dataclasses.replace(FULL.method, **networks))
    return tree_of(config)


def without(tree):
    params = {**tree.params, "g": dict(list(tree.params["g"].items())[1:])}
    return tree.replace(params=params)


def halves(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) if x.dtype == jnp.float32 else x, tree
    )


OTHERS = {
    "shape": lambda tree: other(generator={"base_channels": 6}),
    "layers": lambda tree: other(generator={"size": 32}, discriminator={"size": 32}),
    "extra": lambda tree: tree.replace(extra_state={**tree.extra_state, "more": tree.step}),
    "missing": without,
    "dtype": halves,
    "swapped": swapped,
    "model": lambda tree: tree_of(CYCLE),
}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A checkpoint of FULL, and its tree."""
    tree = tree_of(FULL)
    folder = tmp_path_factory.mktemp("full")
    checkpoint.save(folder, 4, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree), {})
    return folder, tree


@pytest.mark.fault(22)
@pytest.mark.parametrize("kind", OTHERS)
def test_a_checkpoint_of_another_model_is_refused_with_every_difference(kind, full):
    folder, tree = full
    like = OTHERS[kind](tree)

    def leaves(tree) -> dict:
        found = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(p): (x.shape, x.dtype) for p, x in found}

    have, want = leaves(tree), leaves(like)
    different = {name for name in have.keys() | want.keys() if have.get(name) != want.get(name)}
    assert different
    told = []
    with pytest.raises(UserError) as stop:
        checkpoint.restore(folder, like, report=told.append)
    assert stop.value.code == 2
    assert {line.split(": ")[0] for line in told} == different
    assert checkpoint.restore(folder, tree).step == 4
    assert checkpoint_files.corrupt(folder) == []


@pytest.mark.fault(23)
def test_a_newer_schema_is_refused_and_nothing_is_changed(tmp_path):
    """Not even for the older checkpoint beside it, which would lose work in silence."""
    saves.begin(tmp_path)
    path = checkpoint.save(tmp_path, 2, saves.state(2), {})
    manifest = json.loads((path / "manifest.json").read_text())
    newer = checkpoint_files.SCHEMA + 1
    (path / "manifest.json").write_text(json.dumps({**manifest, "schema": newer}))
    digest = checkpoint_files.sha256(path / "manifest.json")
    (path / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
    for at in (None, 2):
        with pytest.raises(UserError, match=f"schema {newer}") as stop:
            checkpoint.restore(tmp_path, LIKE, at=at)
        assert stop.value.code == 2
    assert checkpoint.steps(tmp_path) == [1, 2]
