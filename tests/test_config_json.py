"""Settings as JSON: every config comes back equal, and reading them runs nothing."""

import dataclasses
import json
import os

import pytest
from tiny import CARTOON, CYCLE, FULL, JUDGE, NAMES, R3, SPELLER, TEXT

from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.methods.schedule import Schedule
from anigan_jax.optimizers import Optimizer


def there_and_back(config):
    return configs.from_json(json.loads(json.dumps(configs.to_json(config), allow_nan=False)))


@pytest.mark.parametrize("name", NAMES)
def test_every_config_comes_back_equal(name):
    config = config_file.load(name)
    assert there_and_back(config) == config
    resolved = configs.resolve(config, 10_000)
    assert there_and_back(resolved) == resolved


@pytest.mark.parametrize(
    "config",
    [FULL, TEXT, R3, CYCLE, CARTOON, JUDGE, SPELLER],
    ids=lambda c: type(c.method).__name__,
)
def test_every_family_comes_back_equal(config):
    again = there_and_back(config)
    assert again == config
    assert configs.fingerprint(again) == configs.fingerprint(config)
    # Nested settings, tuples and dicts of settings are of their classes again.
    assert isinstance(again.optimizers["d"], Optimizer)
    assert isinstance(again.optimizers["d"].boundaries, tuple)
    configs.check(again)


TAMPERED = (
    "os:system",
    "subprocess:Popen",
    "builtins:eval",
    "../x.py:A",
    "/etc/x.py:A",
    "",
    "anigan_jax",
    "anigan_jax.config:",
    "anigan_jax.config:resolve",
    "anigan_jax.config:json.loads",
    "anigan_jax.config:MethodSettings.make",
    "anigan_jax.cli.main:argparse.ArgumentParser",
    # A settings class, but not where it is defined: the way there could lead anywhere.
    "anigan_jax.config:dataclasses.dataclass",
    "anigan_jax.storage.checkpoint:ocp.CheckpointManagerOptions",
    "anigan_jax.no_such_room:A",
    "anigan_jax..os:system",
    "anigan_jaxer.config:Config",
    7,
    None,
    ["anigan_jax.config", "Config"],
)


@pytest.mark.parametrize("place", TAMPERED, ids=str)
def test_a_tampered_class_is_refused_and_nothing_runs(place, monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(os, "system", called.append)
    monkeypatch.chdir(tmp_path)
    (tmp_path.parent / "x.py").write_text("raise SystemExit('it ran')\n")
    tree = configs.to_json(FULL)
    tree["method"]["schedule"] = {"class": place}
    with pytest.raises(UserError):
        configs.from_json(tree)
    assert not called


@pytest.mark.parametrize(
    "change", [{"kindd": "fixed"}, {"class": "anigan_jax.methods.gan:GAN", "schedul": 1}]
)
def test_settings_that_a_class_does_not_have_are_refused(change):
    tree = configs.to_json(Schedule())
    with pytest.raises(UserError, match="cannot be read"):
        configs.from_json({**tree, **change})


def test_identity_leaves_out_where_things_lie():
    here, there = (
        dataclasses.replace(FULL, data=Images(path=place, tags=f"{place}/tags.csv", size=16))
        for place in ("/here", "/there")
    )
    assert configs.fingerprint(here) == configs.fingerprint(there)
    assert here != there
    smaller = dataclasses.replace(here, data=dataclasses.replace(here.data, test=0.2))
    assert configs.fingerprint(smaller) != configs.fingerprint(here)
    # What was given is kept all the same.
    assert there_and_back(here).data.path == "/here"
