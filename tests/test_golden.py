"""No change of the code moves a bit of any training: every config, tiny, on one and two devices.

What is recorded was computed by another process on another day, and compiled by it. Where a
machine's kind has no record, a second process computes here, and compiles for itself.
"""

import json
import subprocess
import sys

import golden
import pytest
from tiny import NAMES, process_env

KNOWN = json.loads(golden.FILE.read_text())
GROUPS = golden.alike(NAMES)
# One of each family: the rest is for those who have the time.
QUICK = {"ref_dcgan64", "ref_text_gan", "colour_classifier"}
MARKED = [
    pytest.param(group, id=group[0], marks=() if QUICK & {*group} else pytest.mark.long)
    for group in GROUPS
]


def recorded(name: str, folder) -> dict[str, list[str]]:
    """'NAME/DEVICES' -> fingerprints, of the record or of another process."""
    if golden.platform_key() in KNOWN:
        return KNOWN[golden.platform_key()]
    env = {**process_env(), "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, golden.__file__, name]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("group", MARKED)
def test_a_config_keeps_its_bits(group, tmp_path):
    found, want = golden.prints(group[0], golden.COUNTS, tmp_path), recorded(group[0], tmp_path)
    assert found == {name: want[name] for name in found}


def test_the_fingerprints_are_of_these_configs():
    for prints in KNOWN.values():
        for devices in golden.COUNTS:
            of = {name: tuple(prints[f"{name}/{devices}"]) for name in NAMES}
            # What is one config at tiny width has one record; every other has its own.
            assert all(len({of[name] for name in group}) == 1 for group in GROUPS)
            assert len({*of.values()}) == len(GROUPS)
        assert prints.keys() == {f"{name}/{n}" for name in NAMES for n in golden.COUNTS}
