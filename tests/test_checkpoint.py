"""Checkpoints: whole or not at all; damage is seen, told and survived."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from anigan_jax import checkpoint
from anigan_jax.errors import UserError

STATE = {
    "weights": np.arange(2000, dtype=np.float32).reshape(20, 100),
    "count": np.int32(7),
    "empty": {},
}


def saved(folder, steps=(1, 2, 3)):
    for step in steps:
        state = {**STATE, "count": np.int32(step)}
        checkpoint.save(folder, step, state, {"note": "x"})
    return folder


def same(found, step):
    assert found.step == step
    assert found.state["count"] == step
    np.testing.assert_array_equal(found.state["weights"], STATE["weights"])
    assert found.state["weights"].dtype == np.float32


def test_round_trip(tmp_path):
    found = checkpoint.restore(saved(tmp_path), STATE)
    same(found, 3)
    assert found.manifest["meta"] == {"note": "x"}
    assert checkpoint.restore(tmp_path / "none", STATE) is None


def files_of(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


def test_every_kind_of_damage_falls_back_to_the_one_before(tmp_path):
    """Each file of the newest checkpoint flipped, cut short and removed in turn."""
    names = [p.relative_to(tmp_path / "model") for p in files_of(saved(tmp_path / "model"))]
    names = [n for n in names if n.parts[0] == "step_000000003"]
    assert len(names) > 3
    cases = [(n, kind) for n in names for kind in ("flip", "cut", "remove")]
    for i, (name, kind) in enumerate(cases):
        # Hard links would share the damage: write anew.
        folder = tmp_path / f"case{i}"
        for source in files_of(tmp_path / "model"):
            target = folder / source.relative_to(tmp_path / "model")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        path, data = folder / name, bytearray((folder / name).read_bytes())
        if kind == "flip" and data:
            data[len(data) // 2] ^= 4
            path.write_bytes(data)
        elif kind == "cut" and data:
            path.write_bytes(data[: len(data) // 2])
        else:
            path.unlink()
        told = []
        found = checkpoint.restore(folder, STATE, report=told.append)
        if name.name == "manifest.json" and kind == "flip" and found.step == 3:
            # A flipped letter inside "note" changes nothing that is restored.
            same(found, 3)
            continue
        same(found, 2)
        assert "step_000000003" in told[0]
        assert (folder / "step_000000003.corrupt").exists()


def test_all_damaged_refuses_to_start_over(tmp_path):
    saved(tmp_path)
    for step in (1, 2, 3):
        (tmp_path / f"step_{step:09d}" / "manifest.json").write_text("{")
    for _ in range(2):
        with pytest.raises(UserError, match="damaged"):
            checkpoint.restore(tmp_path, STATE, report=lambda text: None)


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "weights": STATE["weights"][:10]},
        {**STATE, "weights": STATE["weights"].astype(np.float64)},
        {**STATE, "more": np.zeros(2)},
        {"weights": STATE["weights"]},
    ],
)
def test_another_tree_is_refused_and_the_checkpoint_kept(tmp_path, other):
    saved(tmp_path)
    with pytest.raises(UserError, match="another model"):
        checkpoint.restore(tmp_path, other)
    same(checkpoint.restore(tmp_path, STATE), 3)


def test_an_unfinished_save_is_no_checkpoint(tmp_path):
    saved(tmp_path, (1,))
    half = tmp_path / ".tmp-2-99"
    (half / "state").mkdir(parents=True)
    (half / "state" / "data").write_bytes(b"half")
    same(checkpoint.restore(tmp_path, STATE), 1)
    checkpoint.prune(tmp_path, 3)
    assert not half.exists()


def test_prune_keeps_the_newest(tmp_path):
    checkpoint.prune(saved(tmp_path), 2)
    assert checkpoint.steps(tmp_path) == [2, 3]


def test_saving_a_step_again_replaces_it(tmp_path):
    saved(tmp_path, (1,))
    checkpoint.save(tmp_path, 1, {**STATE, "count": jnp.int32(9)}, {})
    assert checkpoint.restore(tmp_path, STATE).state["count"] == 9
    assert not list(tmp_path.glob(".*"))


def test_the_manifest_names_every_leaf(tmp_path):
    saved(tmp_path, (1,))
    manifest = json.loads((tmp_path / "step_000000001" / "manifest.json").read_text())
    assert manifest["leaves"]["['weights']"]["shape"] == [20, 100]
    assert manifest["leaves"]["['count']"]["dtype"] == "int32"
    assert manifest["files"]


def test_pruning_keeps_the_newest_and_those_of_a_history(tmp_path):
    folder = saved(tmp_path, (2, 3, 4, 5, 6))
    checkpoint.prune(folder, keep=1, every=2)
    assert checkpoint.steps(folder) == [2, 4, 6]
    checkpoint.prune(folder, keep=2)
    assert checkpoint.steps(folder) == [4, 6]


def test_one_step_of_a_history_is_read_or_refused_without_touching_it(tmp_path):
    folder = saved(tmp_path)
    same(checkpoint.restore(folder, STATE, at=2), 2)
    (folder / "step_000000002" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="step_000000002 is damaged"):
        checkpoint.restore(folder, STATE, at=2)
    assert checkpoint.steps(folder) == [1, 2, 3]
    same(checkpoint.restore(folder, STATE), 3)
