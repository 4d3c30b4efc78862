"""Pictures, animations, texts and networks: old or new after a kill, old on a full disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from faults import disk, saves
from faults.saves import EXPORTS, SAVES, script
from tiny import process_env

pytestmark = pytest.mark.long

OLD, NEW = 1, 2


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in EXPORTS}


@pytest.fixture
def exported(tmp_path):
    """Old exports in tmp_path/before, and the bytes that new ones have."""
    for name, value in (("before", OLD), ("new", NEW)):
        (tmp_path / name).mkdir()
        saves.exports(tmp_path / name, value)
    old, new = contents(tmp_path / "before"), contents(tmp_path / "new")
    assert all(old[name] != new[name] for name in EXPORTS)
    return old, new


@pytest.mark.fault(42)
def test_a_kill_leaves_each_export_old_or_new(exported, tmp_path):
    old, new = exported
    command = script("kill", "exports", tmp_path)
    done = subprocess.run(command, env=process_env(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert killed >= 2 * len(EXPORTS)
    for number in range(1, killed + 1):
        found = contents(tmp_path / str(number) / "checkpoints")
        assert all(found[name] in (old[name], new[name]) for name in EXPORTS)


@disk.needs_strace
@pytest.mark.fault(42)
def test_a_kill_inside_a_write_leaves_each_export_old_or_new(exported, tmp_path):
    old, new = exported
    calls = disk.recorded("exports", tmp_path)
    seen = set()
    for _, crash, left in disk.crashes(tmp_path / "before", tmp_path / "run", calls):
        if crash == "kill":
            assert all(left[name] in (old[name], new[name]) for name in EXPORTS)
            seen.add(sum(left[name] == new[name] for name in EXPORTS))
    assert seen == set(range(len(EXPORTS) + 1))


FULL_DISK = """
import resource, sys
from pathlib import Path
from faults import saves
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
for name, write in saves.EXPORTS.items():
    try:
        write(Path(sys.argv[1]) / name, 2)
    except OSError:
        print(name)
"""


@pytest.mark.fault(42)
@pytest.mark.parametrize("limit", [0, 1000])
def test_a_full_disk_leaves_each_export_as_it_was(exported, tmp_path, limit):
    """RLIMIT_FSIZE: no file may grow beyond the limit."""
    old, _ = exported
    environment = process_env()
    environment["PYTHONPATH"] += f":{SAVES.parent.parent}"
    command = [sys.executable, "-W", "ignore", "-c", FULL_DISK]
    command += [str(tmp_path / "before"), str(limit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == list(EXPORTS), done.stderr
    assert contents(tmp_path / "before") == old
