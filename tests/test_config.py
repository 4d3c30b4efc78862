"""Configs: every one loads; identity, refusals and suggestions."""

import dataclasses

import pytest
from tiny import FULL, NAMES

from anigan_jax import config as configs
from anigan_jax import config_file
from anigan_jax.errors import UserError


@pytest.mark.parametrize("name", NAMES)
def test_every_config_loads_and_checks(name):
    config = config_file.load(name)
    assert config.name == name
    configs.check(config)


def of_g(**changes):
    """FULL with another optimizer of G."""
    g = dataclasses.replace(FULL.optimizers["g"], **changes)
    return dataclasses.replace(FULL, optimizers={**FULL.optimizers, "g": g})


def test_identity_is_all_but_the_run():
    run = dataclasses.replace(FULL.run, steps=99, mapper="shard_map")
    assert configs.fingerprint(dataclasses.replace(FULL, run=run)) == configs.fingerprint(FULL)
    other = of_g(b1=0.4)
    assert configs.fingerprint(other) != configs.fingerprint(FULL)
    changed = configs.differences(configs.identity(FULL), configs.identity(other))
    assert changed == ["optimizers.g.b1: 0.5 -> 0.4"]


@pytest.mark.fault(21)
def test_a_path_or_a_name_or_a_suggestion(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    with pytest.raises(UserError, match="CONFIG"):
        config_file.load(str(path))
    with pytest.raises(UserError, match="'ref_dcgan64'"):
        config_file.find("ref_dcgan46")
    with pytest.raises(UserError, match="'anime_words' replaces it"):
        config_file.find("text_gan_sn")


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("config = Config('x', GAN(), PaintedFaces())", "; config is one: call it CONFIG"),
        ("def CONFIG(): pass", "; its CONFIG is a function"),
        (
            "CONFIG = Config('x', GAN, PaintedFaces())",
            r"method is the class GAN; it must be an object, such as GAN\(\)",
        ),
        (
            "CONFIG = Config('x', GAN(generator=Generator), PaintedFaces())",
            r"method.generator is the class Generator; .* Generator\(\)",
        ),
    ],
)
def test_what_stands_in_place_of_a_config_is_told(tmp_path, text, told):
    path = tmp_path / "mine.py"
    front = "from anigan_jax import Config\nfrom anigan_jax.methods.gan import GAN\n"
    front += "from anigan_jax.networks.dcgan import Generator\n"
    front += "from anigan_jax.data.synthetic.sources import PaintedFaces\n"
    path.write_text(front + text)
    with pytest.raises(UserError, match=told):
        config_file.load(str(path))


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--run.steps 0 --run.epochs 1000000000", "run.steps is 5000000000"),
        ("--optimizers.g.unit epoch --optimizers.g.boundaries 1 900000000", "g.boundaries.1 is 45"),
        ("--optimizers.g.unit image --optimizers.g.boundaries 2000000000", ""),
    ],
)
def test_more_steps_than_can_be_counted_are_refused(words, told):
    config = config_file.override(FULL, words.split(), "x")
    configs.check(config)
    if not told:
        configs.resolve(config, 40)
        return
    with pytest.raises(UserError, match=rf"counted in steps \(5 per epoch\), .*{told}"):
        configs.resolve(config, 40)


@pytest.mark.fault(21)
def test_all_faults_are_named_at_once():
    bad = dataclasses.replace(of_g(learning_rate=float("inf")), batch_size=0, seed=-1)
    with pytest.raises(UserError) as caught:
        configs.check(bad)
    for part in ("batch_size", "seed", "optimizers.g.learning_rate"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("", 3000),
        ("--run.epochs 2", 2 * 121),
        ("--run.epochs=2", 2 * 121),
        ("--run.steps 50", 50),
        ("--run.epochs 2 --run.steps 50", 50),
    ],
)
def test_epochs_that_are_asked_for_decide_where_a_config_has_steps(words, steps):
    """`quickstart` says its length in steps of 32."""
    asked = config_file.override(config_file.load("quickstart"), words.split(), "")
    assert configs.resolve(asked, 3894).run.steps == steps
