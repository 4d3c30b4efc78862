"""Checkpoints: whole or not at all; damage is seen, told and survived."""

import json
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anigan_jax import intervals
from anigan_jax.errors import MachineError, UserError
from anigan_jax.storage import checkpoint
from anigan_jax.storage import manifest as checkpoint_files

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


def rewrite(path, manifest):
    """Another manifest, with the digest that belongs to it."""
    (path / "manifest.json").write_text(json.dumps(manifest))
    digest = checkpoint_files.sha256(path / "manifest.json")
    (path / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


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
    checkpoint.save(tmp_path, 2, STATE, {})
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
    checkpoint.prune(folder, keep=1, every=intervals.parse("2"))
    assert checkpoint.steps(folder) == [2, 4, 6]
    checkpoint.prune(folder, keep=2)
    assert checkpoint.steps(folder) == [4, 6]


def test_what_was_written_to_be_kept_stays_whatever_the_interval_is_now(tmp_path):
    for step in (2, 3, 4, 5):
        checkpoint.save(tmp_path, step, STATE, {"kept": True} if step == 3 else {})
    assert checkpoint.prune(tmp_path, 1, intervals.parse("2")) == []
    assert checkpoint.prune(tmp_path, 1) == [2, 4]
    assert checkpoint.steps(tmp_path) == [3, 5]


def test_one_step_of_a_history_is_read_or_refused_without_touching_it(tmp_path):
    folder = saved(tmp_path)
    same(checkpoint.restore(folder, STATE, at=2), 2)
    (folder / "step_000000002" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="step_000000002 is damaged"):
        checkpoint.restore(folder, STATE, at=2)
    assert checkpoint.steps(folder) == [1, 2, 3]
    same(checkpoint.restore(folder, STATE), 3)


@pytest.mark.parametrize("schema", [0, -1, "2", None, True, 2.0, 2.5, [1], {}])
def test_a_schema_that_never_was_is_damage(tmp_path, schema):
    path = saved(tmp_path) / "step_000000003"
    manifest = json.loads((path / "manifest.json").read_text())
    rewrite(path, {**manifest, "schema": schema})
    same(checkpoint.restore(tmp_path, STATE, report=lambda text: None), 2)


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["files"], []),
        (["files", "_METADATA"], 531),
        (["leaves"], None),
        (["leaves", "['count']"], {"dtypf": "int32", "shape": [], "sha256": "8a94b949b89b0df7"}),
        (["leaves", "['count']"], {"dtype": "int32", "shapd": [], "sha256": "8a94b949b89b0df7"}),
        (["step"], "5"),
        (["step"], True),
        (["meta"], 3),
    ],
)
def test_a_manifest_of_another_form_is_damage(tmp_path, place, value):
    """Whoever wrote and signed it."""
    folder = saved(tmp_path, (5,))
    path = folder / "step_000000005"
    assert checkpoint.verify(path, 5) == []
    manifest = json.loads((path / "manifest.json").read_text())
    inner = manifest
    for name in place[:-1]:
        inner = inner[name]
    assert place[-1] in inner
    inner[place[-1]] = value
    rewrite(path, manifest)
    assert checkpoint.verify(path, 5)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.restore(folder, STATE, at=5)


@pytest.mark.fault(4)
@pytest.mark.parametrize("leaf", [{"dtype": "uint22"}, {"shape": [2, -1]}, {"shape": ["2"]}])
def test_arrays_that_cannot_be_are_damage(tmp_path, leaf):
    path = saved(tmp_path, (5,)) / "step_000000005"
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["leaves"]["['count']"] |= leaf
    rewrite(path, manifest)
    assert checkpoint.verify(path, 5)


def test_a_fault_of_the_program_is_not_called_the_disk_s(tmp_path):
    saved(tmp_path, (1,))
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 2, STATE, {"no JSON": object()})
    same(checkpoint.restore(tmp_path, STATE), 1)
    saved(tmp_path, (2,))
    same(checkpoint.restore(tmp_path, STATE), 2)


def test_what_orbax_cannot_write_is_the_machine_s(tmp_path):
    saved(tmp_path, (1,))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(MachineError):
            checkpoint.save(tmp_path, 2, STATE, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    same(checkpoint.restore(tmp_path, STATE), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001"]


def test_a_save_that_was_killed_while_it_replaced_a_step_leaves_the_old_one(tmp_path):
    saved(tmp_path, (1, 2))
    old = tmp_path / ".old-2-99"
    (tmp_path / "step_000000002").rename(old)
    same(checkpoint.restore(tmp_path, STATE), 2)
    same(checkpoint.restore(tmp_path, STATE, at=2), 2)
    assert old.exists(), "reading moves nothing"
    checkpoint.prune(tmp_path, 1)
    assert checkpoint.steps(tmp_path) == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000002"]


def test_the_arrays_themselves_are_verified(tmp_path):
    """Files that fit their digests, but not the arrays that were given to be saved."""
    path = saved(tmp_path, (3,)) / "step_000000003"
    assert checkpoint.verify(path, 3) == []
    manifest = json.loads((path / "manifest.json").read_text())
    leaves = {**STATE, "count": np.int32(4)}
    manifest["leaves"] = checkpoint.leaf_digests(leaves)
    checkpoint_files.write_manifest(path, 3, manifest["meta"], manifest["leaves"])
    assert checkpoint_files.examine(path, 3)[1] == []
    assert checkpoint.verify(path, 3) == ["array ['count']: not as saved"]


def test_half_precision_is_kept(tmp_path):
    state = {"x": jnp.linspace(0, 1, 7).astype(jnp.bfloat16)}
    checkpoint.save(tmp_path, 1, state, {})
    found = checkpoint.restore(tmp_path, jax.tree.map(np.asarray, state))
    assert checkpoint.leaf_digests(found.state) == checkpoint.leaf_digests(state)
    assert checkpoint.verify(tmp_path / "step_000000001", 1) == []
