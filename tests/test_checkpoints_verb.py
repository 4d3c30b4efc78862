"""The verb `checkpoints`: lists, verifies, prunes, and deletes nothing that is needed."""

import json
import shutil
import subprocess
import sys

import pytest
from faults import saves
from tiny import process_env

from anigan_jax.storage import checkpoint, lock
from anigan_jax.storage import manifest as checkpoint_files


def saved(folder, steps):
    for step in steps:
        checkpoint.save(folder, step, saves.state(step), {})


def files_of(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


@pytest.fixture
def run(tmp_path):
    """A run folder with checkpoints of steps 1 to 4, the second the best."""
    folder = tmp_path / "run"
    saved(folder / "checkpoints", (1, 2, 3, 4))
    (folder / "run.json").write_text("{}")
    (folder / "best.json").write_text('{"step": 2, "kid": 0.1}\n')
    scored = {"step": 2, "kid-random": 0.1, "variety-random": 0.95}
    (folder / "evaluation.jsonl").write_text(json.dumps(scored) + "\n")
    return folder


def damage(run, step):
    path = checkpoint_files.path_of(run / "checkpoints", step)
    largest = max(path.joinpath("state").rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def test_the_verb_lists_what_is_there(run, verb):
    (run / "checkpoints" / ".tmp-5-9").mkdir()
    (run / "checkpoints" / ".tmp-5-9" / "half").write_bytes(b"x" * 700)
    shutil.copytree(
        run / "checkpoints" / "step_000000001", run / "checkpoints" / "step_000000009.corrupt"
    )
    code, out, _ = verb("checkpoints", run, "--json")
    assert code == 0
    found = json.loads(out)
    assert [(one["step"], one["best"]) for one in found["checkpoints"]] == [
        (1, False),
        (2, True),
        (3, False),
        (4, False),
    ]
    assert found["checkpoints"][2]["kid"] is None
    size = sum(p.stat().st_size for p in files_of(run / "checkpoints" / "step_000000003"))
    assert found["checkpoints"][2]["bytes"] == size
    assert found["leftovers"] == [{"name": ".tmp-5-9", "bytes": 700}]
    assert [one["name"] for one in found["set_aside"]] == ["step_000000009.corrupt"]
    assert found["checkpoints"][0]["faults"] is None
    code, out, _ = verb("checkpoints", run)
    lines = out.splitlines()
    assert code == 0
    told = next(line for line in lines if "step         2" in line)
    assert told.endswith("kid 0.1, variety 0.95, best")
    assert "newest" in next(line for line in lines if "step         4" in line)


def test_the_verb_verifies(run, verb):
    code, out, _ = verb("checkpoints", run, "--verify", "--json")
    assert code == 0
    assert all(one["faults"] == [] for one in json.loads(out)["checkpoints"])
    damage(run, 3)
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    code, out, _ = verb("checkpoints", run, "--verify")
    assert code == 1
    assert ["DAMAGED" in line for line in out.splitlines()[1:5]] == [False, False, True, False]
    # Looking moves nothing; without --verify nothing is read.
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    assert verb("checkpoints", run)[0] == 0


def test_the_verb_prunes_and_keeps_the_newest_and_the_best(run, verb):
    (run / "checkpoints" / ".tmp-5-9").mkdir()
    code, out, _ = verb("checkpoints", run, "--prune", 1)
    assert code == 0
    assert "deleted: 1, 3" in out
    assert checkpoint.steps(run / "checkpoints") == [2, 4]
    assert not (run / "checkpoints" / ".tmp-5-9").exists()


def test_the_verb_keeps_what_is_never_to_be_deleted(run, verb):
    (run / "run.json").write_text('{"config": {"run": {"keep_every": 3}}}')
    assert verb("checkpoints", run, "--prune", 1)[0] == 0
    # The newest, the best, and those that 3 divides.
    assert checkpoint.steps(run / "checkpoints") == [2, 3, 4]


def test_the_verb_does_not_call_a_newer_one_damaged(run, verb):
    path = checkpoint_files.path_of(run / "checkpoints", 3)
    manifest = json.loads((path / "manifest.json").read_text())
    newer = {"schema": checkpoint_files.SCHEMA + 1, "step": 3, "arrays": manifest["leaves"]}
    (path / "manifest.json").write_text(json.dumps(newer))
    digest = checkpoint_files.sha256(path / "manifest.json")
    (path / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
    code, out, _ = verb("checkpoints", run, "--verify")
    assert code == 1, "it is not known to be whole"
    assert "DAMAGED" not in out
    assert out.count("whole") == 3
    found = json.loads(verb("checkpoints", run, "--verify", "--json")[1])["checkpoints"][2]
    assert found["faults"] is None
    assert f"schema {checkpoint_files.SCHEMA + 1}" in found["newer"]


@pytest.mark.fault(4, 30)
def test_the_verb_does_not_call_damaged_what_cannot_be_read_for_now(run, verb):
    # A link to itself: an error that is no missing file and no bad sector.
    manifest = checkpoint_files.path_of(run / "checkpoints", 3) / "manifest.json"
    manifest.unlink()
    manifest.symlink_to(manifest)
    code, out, err = verb("checkpoints", run, "--verify")
    assert code == 4
    assert "DAMAGED" not in out
    assert "cannot be read" in err


JAX_OF = """
import sys
from anigan_jax.cli import main as cli
try:
    cli.main(sys.argv[1:])
finally:
    import jax
    print("JAX on", jax.config.jax_platforms)
"""


@pytest.mark.long
def test_the_verb_takes_no_accelerator_from_a_run(run):
    environment = {k: v for k, v in process_env().items() if k != "JAX_PLATFORMS"}
    command = [sys.executable, "-c", JAX_OF, "checkpoints", str(run), "--prune", "2", "--verify"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "JAX on cpu" in done.stdout


@pytest.mark.fault(39)
def test_the_verb_never_deletes_the_last_whole_checkpoint(run, verb):
    for step in (2, 4):
        damage(run, step)
    assert verb("checkpoints", run, "--prune", 1)[0] == 0
    assert checkpoint.steps(run / "checkpoints") == [2, 3, 4]
    damage(run, 3)
    code, _, err = verb("checkpoints", run, "--prune", 1)
    assert code == 2
    assert "none is deleted" in err
    assert checkpoint.steps(run / "checkpoints") == [2, 3, 4]


@pytest.mark.fault(39)
def test_the_verb_does_not_prune_beside_a_training(run, verb):
    with lock.hold(run):
        code, _, err = verb("checkpoints", run, "--prune", 1)
        assert verb("checkpoints", run, "--verify")[0] == 0
    assert code == 2
    assert "another process" in err
    assert checkpoint.steps(run / "checkpoints") == [1, 2, 3, 4]


@pytest.mark.parametrize("given", [["--prune", 0], ["--prune", -1], ["--prune", "x"], ["--keep"]])
def test_the_verb_refuses_what_it_cannot_do(run, verb, given):
    assert verb("checkpoints", run, *given)[0] == 2
    assert checkpoint.steps(run / "checkpoints") == [1, 2, 3, 4]


def test_the_verb_wants_a_run_folder(tmp_path, verb):
    code, _, err = verb("checkpoints", tmp_path)
    assert code == 2
    assert "run.json" in err
    assert not list(tmp_path.iterdir())
