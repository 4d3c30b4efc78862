"""No change of the code moves a bit of any training: every config, tiny, on one and two devices."""

import json

import golden
import pytest
from tiny import NAMES

KNOWN = json.loads(golden.FILE.read_text()).get(golden.platform_key())


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_config_keeps_its_bits(name, devices, tmp_path):
    if KNOWN is None:
        pytest.skip(f"no fingerprints for {golden.platform_key()}; python tests/golden.py")
    assert golden.prints(name, devices, tmp_path) == KNOWN[f"{name}/{devices}"]


def test_the_fingerprints_are_of_these_configs():
    for prints in json.loads(golden.FILE.read_text()).values():
        assert prints.keys() == {f"{name}/{devices}" for name in NAMES for devices in (1, 2)}
