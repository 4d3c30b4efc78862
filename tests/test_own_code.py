"""A user's own loss and network in a config file: trained, kept, opened again when trusted."""

import sys

import numpy as np
import pytest

import anigan_jax
from anigan_jax.errors import UserError
from anigan_jax.storage import run_dir

LOSS = """
from dataclasses import dataclass
from anigan_jax import Config
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.losses import Adversarial
from anigan_jax.methods.gan import GAN
@dataclass(frozen=True)
class Critic(GAN):
    adversarial = Adversarial(lambda real, fake, *_: (-real, fake), lambda fake, *_: -fake)
CONFIG = Config("critic", Critic(), PaintedFaces(count=44))
"""
GENERATOR = """
from dataclasses import dataclass

import flax.linen as nn
from sides import Side

from anigan_jax import Config
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.methods.gan import GAN
from anigan_jax.networks.blocks import GeneratorSettings

class Painter(nn.Module):
    side: int
    @nn.compact
    def __call__(self, z):
        x = nn.relu(nn.Dense(self.side**2 * 4)(z[:, 0, 0]))
        return nn.tanh(nn.Conv(3, (3, 3))(x.reshape(-1, self.side, self.side, 4)))

@dataclass(frozen=True)
class Own(GeneratorSettings):
    sides: Side = Side()
    def build(self, axis_name=None, dtype="float32"):
        return Painter(self.sides.pixels)
CONFIG = Config("own", GAN(generator=Own()), PaintedFaces(count=44))
"""
NEIGHBOR = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Side:
    pixels: int = 16
"""
SMALL = "--method.generator.size 16 --method.generator.z-dim 4 --method.discriminator.size 16 "
SMALL += "--method.discriminator.base-channels 4 --data.size 16 --batch-size 8 --run.devices 1 "
SMALL += "--run.steps 2"


def forget(*names):
    """As in another process."""
    for name in list(sys.modules):
        if name in names or name.startswith("anigan_config_"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run of each config, whose file is gone since."""
    runs = {}
    texts = {"loss": {"loss.py": LOSS}, "generator": {"mine.py": GENERATOR, "sides.py": NEIGHBOR}}
    for name, files in texts.items():
        folder = tmp_path_factory.mktemp(name)
        for file, text in files.items():
            (folder / file).write_text(text)
        config = next(iter(files))
        width = ["--method.generator.base-channels", "4"] if name == "loss" else []
        words = ["train", folder / config, "--workdir", folder / "run", *SMALL.split(), *width]
        runs[name] = folder / "run", words
    return runs


def trained(own, verb, name):
    """The run folder; trained when it is first asked for, its config deleted then."""
    run, words = own[name]
    if not run.exists():
        code, out, err = verb(*words)
        assert code == 0, out + err
        for path in run.parent.glob("*.py"):
            path.unlink()
        forget("sides")
    return run


def opened(run, **options):
    forget("sides")
    for name in [name for name in sys.modules if name.startswith("anigan_run_")]:
        del sys.modules[name]
    return anigan_jax.load(run, **options)


def test_they_are_as_short_as_promised():
    assert len(LOSS.strip().splitlines()) <= 10
    assert len(GENERATOR.strip().splitlines()) <= 25


@pytest.mark.parametrize(
    ("name", "files"), [("loss", ["loss.py"]), ("generator", ["mine.py", "sides.py"])]
)
def test_it_trains_is_kept_and_opens_when_trusted(own, verb, name, files):
    run = trained(own, verb, name)
    recorded = run_dir.read_run(run)
    assert sorted(recorded["code"]) == files
    assert sorted(p.name for p in (run / "code").iterdir()) == files
    for checkpoint in (None, "latest"):
        with pytest.raises(UserError, match="trust") as stop:
            opened(run, checkpoint=checkpoint)
        assert ", ".join(files) in str(stop.value)
        assert not [module for module in sys.modules if module.startswith("anigan_run_")]
        images = opened(run, checkpoint=checkpoint, trust=True).generate(3)
        assert images.shape == (3, 16, 16, 3)
        assert images.dtype == np.uint8
    # Reading leaves no bytecode in it.
    assert sorted(p.name for p in (run / "code").iterdir()) == files


def test_the_verbs_say_how_to_trust_it(own, verb):
    run = trained(own, verb, "loss")
    code, _, err = verb("sample", run, "--n", 1)
    assert code == 2
    assert "--trust" in err
    assert f"would run loss.py of {run / 'code'}" in err
    assert verb("sample", run, "--n", 1, "--trust")[0] == 0


def test_describe_counts_its_layers(verb, tmp_path):
    for name, text in (("mine.py", GENERATOR), ("sides.py", NEIGHBOR)):
        (tmp_path / name).write_text(text.replace("GAN(generator=Own())", "GAN(generator=Own(16))"))
    code, out, err = verb("describe", tmp_path / "mine.py")
    forget("sides")
    assert code == 0, err
    # 100 x 1024 and a bias; 3 x 3 x 4 x 3 and a bias.
    assert "103,424" in out or "103424" in out
    assert "111" in out


@pytest.mark.parametrize("file", ["mine.py", "sides.py"])
@pytest.mark.parametrize("change", ["edit", "delete"])
def test_a_kept_file_that_was_changed_is_refused(own, verb, file, change):
    path = trained(own, verb, "generator") / "code" / file
    before = path.read_bytes()
    if change == "edit":
        path.write_bytes(before + b"raise SystemExit('it ran')\n")
    else:
        path.unlink()
    try:
        with pytest.raises(UserError, match=f"{file} is absent or not the file"):
            opened(path.parent.parent, trust=True)
    finally:
        path.write_bytes(before)


def test_a_run_that_goes_on_with_changed_code_says_so_and_keeps_it(own, verb):
    """Resumed from its own kept copy, with a line more."""
    run = trained(own, verb, "loss")
    _, words = own["loss"]
    config = run.parent / "loss.py"
    config.write_text(f"{LOSS}# More.\n")
    code, out, err = verb("train", config, *words[2:], "--run.log-every", 2)
    config.unlink()
    forget()
    assert code == 0, err
    assert "warning: code/loss.py: " in out
    assert (run / "code" / "loss.py").read_text().endswith("# More.\n")
    assert "code/loss.py" in run_dir.read_run(run)["resumed"][0]["changed"][0]
    assert len(opened(run, trust=True).generate(1)) == 1
