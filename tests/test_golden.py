"""No change of the code moves a bit of any training: every config, tiny; of each family, one on
two devices too.

What is recorded was computed by another process on another day, and compiled by it. Where a
machine's kind has no record, a second process computes here, and compiles for itself.
"""

import json

import golden
import pytest
from tiny import NAMES, process_env

from anigan_jax.config_file import load

KNOWN = json.loads(golden.FILE.read_text())
GROUPS = golden.alike(NAMES)
# One of each family: the rest is for those who have the time.
QUICK = {"ref_dcgan64", "ref_text_gan", "colour_classifier"}
FAMILIES = {type(load(group[0]).method): group[0] for group in reversed(GROUPS)}
MARKED = [
    pytest.param(group, id=group[0], marks=() if QUICK & {*group} else pytest.mark.long)
    for group in GROUPS
]


def recorded(names) -> dict[str, list[str]] | None:
    """'NAME/DEVICES' -> fingerprints, where a machine of this kind has a record of all of them."""
    known = KNOWN.get(golden.platform_key(), {})
    return known if known.keys() >= set(names) else None


@pytest.mark.parametrize("group", MARKED)
def test_a_config_keeps_its_bits(group, tmp_path):
    counts = golden.COUNTS if group[0] in FAMILIES.values() else golden.COUNTS[:1]
    found = golden.prints(group[0], counts, tmp_path)
    want = recorded(found) or golden.by_a_process(group[0], process_env())
    assert found == {name: want[name] for name in found}


@pytest.mark.long
def test_what_users_compile_keeps_its_bits():
    found = golden.as_users_compile(process_env())
    want = recorded(found) or golden.as_users_compile(process_env())
    assert found == {name: want[name] for name in found}


def test_what_changed_on_one_kind_of_machine_has_no_record_on_others():
    known = {"here": {"a": ["1"], "b": ["2"]}, "there": {"a": ["1"], "b": ["9"], "c": ["3"]}}
    after = golden.merged(known, "here", {"a": ["1"], "b": ["4"], "c": ["3"]})
    assert after["here"] == {"a": ["1"], "b": ["4"], "c": ["3"]}
    assert after["there"] == {"a": ["1"], "c": ["3"]}
    # A kind whose record was dropped, or that had none, makes no other stale.
    again = golden.merged(after, "there", {"a": ["1"], "b": ["9"], "c": ["3"]})
    assert again == {**after, "there": {"a": ["1"], "b": ["9"], "c": ["3"]}}
    assert golden.merged(known, "new", {"b": ["5"]}) == {**known, "new": {"b": ["5"]}}


def test_the_fingerprints_are_of_these_configs():
    optimized = {f"{golden.OPTIMIZED}/{n} optimized" for n in golden.COUNTS}
    every = optimized | {f"{name}/{n}" for name in NAMES for n in golden.COUNTS}
    # A config that has changed may lack a record on kinds of machines that were not at hand.
    assert any(prints.keys() == every for prints in KNOWN.values())
    for prints in KNOWN.values():
        assert prints.keys() <= every
        for devices in golden.COUNTS:
            of = {name: tuple(prints.get(f"{name}/{devices}", ())) for name in NAMES}
            # What is one config at tiny width has one record; every other has its own.
            found = [{of[name] for name in group} for group in GROUPS if of[group[0]]]
            assert all(len(each) == 1 for each in found)
            assert len(set.union(*found)) == len(found)
