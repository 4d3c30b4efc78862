"""A user's own loss and network in a config file: trained, kept, opened again when trusted."""

import sys
from pathlib import Path

import numpy as np
import pytest

import anigan_jax
from anigan_jax import config as configs
from anigan_jax import config_file, own_code
from anigan_jax.errors import UserError
from anigan_jax.storage import checkpoint, metrics_file, run_code, run_dir

# What the documentation shows.
EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
LOSS = (EXAMPLES / "critic.py").read_text()
GENERATOR = (EXAMPLES / "painter.py").read_text()
# The same with a module beside it.
IMPORTS = GENERATOR
for old, new in {
    "import flax.linen as nn\n": "import flax.linen as nn\nfrom sides import Side\n",
    "    def build(": "    sides: Side = Side()\n\n    def build(",
    "Painter(self.size)": "Painter(self.sides.pixels)",
}.items():
    assert old in GENERATOR
    IMPORTS = IMPORTS.replace(old, new)
NEIGHBOR = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Side:
    pixels: int = 16
"""
SMALL = "--method.generator.size 16 --method.generator.z-dim 4 --method.discriminator.size 16 "
SMALL += "--method.discriminator.base-channels 4 --data.size 16 --batch-size 8 --run.devices 1 "
SMALL += "--run.steps 2 --data.count 44"


def forget(*names):
    """As in another process."""
    for name in list(sys.modules):
        if name in names or name.startswith("anigan_config_"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run of each config, whose file is gone since."""
    runs = {}
    texts = {"loss": {"loss.py": LOSS}, "generator": {"mine.py": IMPORTS, "sides.py": NEIGHBOR}}
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
    assert len(list(filter(None, LOSS.splitlines()))) <= 10
    assert len(list(filter(None, GENERATOR.splitlines()))) <= 25


@pytest.mark.long
def test_a_loss_with_a_weight_and_a_metric_of_its_own(verb, tmp_path):
    """docs/howto/own_loss.md says that the field is a flag, and that the metric is logged."""
    config = EXAMPLES / "game.py"
    small = [*SMALL.split(), "--method.generator.base-channels", 4]
    code, _, err = verb(
        *("train", config, "--workdir", tmp_path / "run", *small),
        *("--method.color-weight", 100),
    )
    assert code == 0, err
    last = metrics_file.read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    # A hundred times the color outweighs the game.
    assert last["color/g"] > 0 > last["loss/g"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "files"), [("loss", ["loss.py"]), ("generator", ["mine.py", "sides.py"])]
)
def test_it_trains_is_kept_and_opens_when_trusted(own, verb, name, files):
    run = trained(own, verb, name)
    recorded = run_dir.read_run(run)
    assert sorted(recorded["code"]) == files
    assert sorted(p.name for p in (run / "code").iterdir()) == files
    for step in (None, "latest"):
        with pytest.raises(UserError, match="trust") as stop:
            opened(run, checkpoint=step)
        assert ", ".join(files) in str(stop.value)
        assert not [module for module in sys.modules if module.startswith("anigan_run_")]
        images = opened(run, checkpoint=step, trust=True).generate(3)
        assert images.shape == (3, 16, 16, 3)
        assert images.dtype == np.uint8
    # Reading leaves no bytecode in it.
    assert sorted(p.name for p in (run / "code").iterdir()) == files


# Its imports are of three kinds, one of them made when the network is built.
FAMILY, _, MADE = GENERATOR.partition("CONFIG = ")
LATE = "        import pkg.util as late\n        import flat\n        assert flat.util is late\n"
PACKAGE = {
    "mine.v1.py": f"from pkg.sub.fam import *\nCONFIG = {MADE}",
    "flat.py": "from pkg import util\n",
    "pkg/__init__.py": "WORD = 1\n",
    "pkg/util.py": "import anigan_jax\ndef note():\n    return 1\n",
    "pkg/sub/fam.py": FAMILY.replace("        return Painter(", f"{LATE}        return Painter("),
}
RELATIVE = {"pkg/sub/__init__.py": "", "pkg/sub/near.py": "from .. import WORD\n"}


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("from .near import WORD", RELATIVE),
        ("from . import near", RELATIVE),
        ("from pkg.util import note", {}),
        ("import pkg.util\nassert pkg.util.note() == pkg.WORD", {}),
    ],
)
def test_classes_of_a_package_are_kept_with_it_and_opened(tmp_path, line, more):
    """Also where a class of the config's own file stands on them."""
    mine = "@dataclass(frozen=True)\nclass Mine(PainterSettings):\n    pass\n\n\nCONFIG = "
    files = {**PACKAGE, **more, "unused.py": ""}
    files["pkg/sub/fam.py"] = f"{line}\n{files['pkg/sub/fam.py']}"
    names = [n.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for n in files]
    for both in (False, True):
        folder = tmp_path / str(both)
        if both:
            text = files["mine.v1.py"].replace("PainterSettings()", "Mine()")
            files["mine.v1.py"] = text.replace("CONFIG = ", mine)
        for file, text in files.items():
            path = folder / "from" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        config = config_file.load(str(folder / "from" / "mine.v1.py"))
        code = own_code.of(config)
        assert code.files.keys() == files.keys() - {"unused.py", *["mine.v1.py"] * (not both)}
        kept = run_code.keep(code.files, folder / "code")
        tree = configs.to_json(config, code.modules)
        sys.path.remove(str(folder / "from"))
        forget(*names, "pkg.sub")
        opened = configs.from_json(tree, own_code.importer(folder / "code", kept, True))
        opened.method.generator.build()
        assert not {"pkg", "flat"} & sys.modules.keys()
        assert configs.fingerprint(opened) == configs.fingerprint(config)
        # A resume keeps the same files, and nothing was left beside them.
        assert own_code.of(opened).files.keys() == kept.keys()
        assert {p.name for p in (folder / "code").rglob("*") if p.is_file()} == {
            Path(name).name for name in kept
        }


def test_code_that_a_run_keeps_already_is_not_written_anew(tmp_path, monkeypatch):
    """A kill between a deletion and a writing would lose the only copy."""
    texts = {"a.py": b"# caf\xe9", "pkg/b.py": b"b\n"}
    for name, text in texts.items():
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_bytes(text)
    kept, folder = {name: tmp_path / "from" / name for name in texts}, tmp_path / "code"
    digests = run_code.keep(kept, folder)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.py")} == texts.keys()
    with monkeypatch.context() as patch:
        patch.setattr(run_code.atomic, "save_bytes", None)
        assert run_code.keep({name: folder / name for name in texts}, folder) == digests
    # What it no longer has goes, and the folder of it.
    kept["a.py"].write_bytes(b"a\n")
    run_code.keep({"a.py": kept["a.py"]}, folder)
    assert [path.name for path in folder.iterdir()] == ["a.py"]
    assert (folder / "a.py").read_bytes() == b"a\n"


def test_the_verbs_say_how_to_trust_it(own, verb):
    run = trained(own, verb, "loss")
    code, _, err = verb("sample", run, "--n", 1)
    assert code == 2
    assert "--trust" in err
    assert f"would run loss.py of {run / 'code'}" in err
    assert verb("sample", run, "--n", 1, "--trust")[0] == 0


UNET = (EXAMPLES / "unet.py").read_text()
TRANSLATES = "--method.generator.size 16 --method.discriminator.size 16 --data.size 16 "
TRANSLATES += "--method.generator.width 4 --method.generator.depth 2 --data.count 32 "
TRANSLATES += "--method.discriminator.base-channels 4 --method.discriminator.num-downsamples 1 "
TRANSLATES += "--data.pairs 4 --run.devices 1 --run.steps 2"


@pytest.mark.long
def test_a_network_that_translates_trains_and_changes_photos(verb, tmp_path):
    run, photos = tmp_path / "run", np.zeros((2, 24, 24, 3), np.uint8)
    (tmp_path / "unet.py").write_text(UNET)
    words = ("train", tmp_path / "unet.py", "--workdir", run, *TRANSLATES.split())
    code, out, err = verb(*words)
    assert code == 0, out + err
    anigan = opened(run, trust=True)
    assert anigan.config.method.generator.depth == 2
    # Two ways, each with weights of its own; at any side that halves twice.
    there, back = (anigan.translate(photos, direction) for direction in ("ab", "ba"))
    assert there.shape == back.shape == photos.shape
    assert not np.array_equal(there, back)
    with pytest.raises(UserError, match="multiple of 4"):
        anigan.translate(photos[:, :22, :22])


WORDED = (EXAMPLES / "worded.py").read_text()
WORDS = "--method.generator.size 16 --method.generator.z-dim 4 --method.discriminator.size 16 "
WORDS += "--method.discriminator.width 4 --data.size 16 --data.count 44 --batch-size 8 "
WORDS += "--run.devices 1 --run.steps 2"


@pytest.mark.long
@pytest.mark.parametrize("method", ["TextGAN(", "R3GAN(labels=True, "])
def test_networks_that_see_a_text_train_and_are_asked(verb, tmp_path, method):
    assert "TextGAN(" in WORDED
    text = WORDED.replace("TextGAN(", method) + "\n"
    text = text.replace(
        "import TextGAN", "import TextGAN\nfrom anigan_jax.methods.r3gan import R3GAN"
    )
    (tmp_path / "worded.py").write_text(text)
    code, out, err = verb(
        "train", tmp_path / "worded.py", "--workdir", tmp_path / "run", *WORDS.split()
    )
    assert code == 0, out + err
    run = opened(tmp_path / "run", trust=True)
    blue, red = (run.generate(3, prompt=f"{hair} hair red eyes") for hair in ("blue", "red"))
    assert blue.shape == red.shape == (3, 16, 16, 3)
    assert np.abs(blue.astype(int) - red).max() > 0
    again = run.generate(3, prompt="blue hair red eyes")
    assert np.array_equal(blue, again)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("generator=PainterSettings(), ", "", ""),
        ("generator=PainterSettings()", "generator=Generator()", "method.generator"),
        ("discriminator=CriticSettings()", "discriminator=Discriminator()", "method.discriminator"),
        ("TextGAN(", "GAN(", "takes z, texts"),
    ],
)
def test_networks_that_take_no_texts_are_told_apart(tmp_path, right, wrong, told):
    front = "from anigan_jax.methods.gan import GAN\n"
    front += "from anigan_jax.networks.dcgan import Discriminator, Generator\n"
    text = WORDED.replace(f"    {right}" if right == "TextGAN(" else right, wrong)
    assert text != WORDED
    (tmp_path / "worded.py").write_text(front + text)
    settings = config_file.load(str(tmp_path / "worded.py")).method
    if not told:
        settings.make()
        return
    with pytest.raises(UserError, match=told):
        settings.make()


@pytest.mark.parametrize(
    ("text", "right", "wrong", "flags"),
    [
        (GENERATOR, "Painter(self.size)", "Painter(self.size // 2)", SMALL),
        (UNET, "tanh(nn.Conv(3, (3, 3))", "tanh(nn.Conv(3, (3, 3), strides=2)", TRANSLATES),
    ],
    ids=["noise", "photos"],
)
def test_a_generator_of_other_images_is_refused_before_the_run_is(
    verb, tmp_path, text, right, wrong, flags
):
    half = text.replace(right, wrong)
    assert half != text
    (tmp_path / "mine.py").write_text(half)
    words = ("train", tmp_path / "mine.py", "--workdir", tmp_path / "run", *flags.split())
    code, _, err = verb(*words)
    assert code == 2
    assert "(2, 8, 8, 3)" in err and "(2, 16, 16, 3)" in err
    assert not (tmp_path / "run" / run_dir.RUN).exists()


def test_a_mistake_in_ones_own_code_is_told_by_its_line(verb, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_TRACEBACK_FILTERING", raising=False)
    lines = GENERATOR.splitlines()
    at = next(i for i, line in enumerate(lines) if ".reshape(" in line)
    lines[at] = lines[at].replace(".reshape(", ".reshape(7, ")
    config, run = tmp_path / "mine.py", tmp_path / "run"
    config.write_text("\n".join(lines))
    words = ("train", config, "--workdir", run, *SMALL.split())
    code, _, err = verb(*words)
    assert code == 2
    assert f"mine.py, line {at + 1}: TypeError: " in err
    assert "Traceback" not in err
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setenv("JAX_TRACEBACK_FILTERING", "off")
        verb(*words)
    # Nothing is in the way of the mended one.
    config.write_text(GENERATOR)
    assert verb(*words)[0] == 0


@pytest.mark.parametrize(
    "kind, value, told",
    [
        ("'Nowhere'", "None", "settings of PainterSettings have types that no flag can have"),
        ("Callable", "jax.numpy.tanh", "settings of PainterSettings"),
        ("Callable", "len", "settings are kept as JSON"),
    ],
)
def test_a_setting_that_can_be_no_setting_is_told(verb, tmp_path, kind, value, told):
    text = GENERATOR.replace("    def build(", f"    odd: {kind} = {value}\n\n    def build(")
    config = tmp_path / "mine.py"
    config.write_text(f"from collections.abc import Callable\nimport jax\n{text}")
    code, _, err = verb("train", config, "--workdir", tmp_path / "run", *SMALL.split())
    assert code == 2
    assert told in err
    assert not (tmp_path / "run").exists()


def test_a_mistake_of_ours_keeps_its_traceback(verb, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(GENERATOR)
    monkeypatch.setattr("anigan_jax.training.loop.checked", lambda *_: [][0])
    with pytest.raises(IndexError):
        verb("train", tmp_path / "mine.py", "--workdir", tmp_path / "run", *SMALL.split())


def test_describe_counts_its_layers(verb, tmp_path):
    (tmp_path / "mine.py").write_text(GENERATOR.replace("PainterSettings()", "PainterSettings(16)"))
    code, out, err = verb("describe", tmp_path / "mine.py")
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
        with pytest.raises(UserError, match=f"{file} is missing or not the file"):
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


def test_a_config_may_be_edited_while_its_run_trains(tmp_path, verb, monkeypatch):
    """What ran is kept at the start; nothing that is read later may end the run."""
    file, save = tmp_path / "mine.py", checkpoint.save
    file.write_text(LOSS)

    def edited(*args):
        file.write_text("def half(")
        return save(*args)

    monkeypatch.setattr(checkpoint, "save", edited)
    small = [*SMALL.split(), "--method.generator.base-channels", "4", "--run.checkpoint-every", "1"]
    code, _, err = verb("train", file, "--workdir", tmp_path / "run", *small)
    assert code == 0, err
    assert (tmp_path / "run/code/mine.py").read_text() == LOSS
    forget()
    assert opened(tmp_path / "run", trust=True).generate(2).shape[0] == 2
