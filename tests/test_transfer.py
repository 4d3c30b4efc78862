"""A run that starts from another: what it takes, that it stands alone, what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import leaves, ledger
from tiny import FULL, PLAIN, drawn, drawn_state, packed, run_steps, untrained

import anigan_jax
from anigan_jax import config as configs
from anigan_jax import parent as parents
from anigan_jax.errors import UserError
from anigan_jax.optimizers import Optimizer
from anigan_jax.parent import Fit, Parent, fit, refuse
from anigan_jax.state import init_state
from anigan_jax.storage import checkpoint, manifest, run_dir
from anigan_jax.training import step, transfer
from anigan_jax.training.program import Program

# Other data, another rate, another batch, another schedule, two devices.
OTHER = ("--data.seed", "1", "--data.count", "20", "--optimizers.g.learning-rate", "1e-3")
OTHER += ("--batch-size", "4", "--seed", "5", "--run.devices", "2", "--run.platform", "cpu")
OTHER += ("--method.schedule.kind", "fixed")
# Dispatches of one step, as replay has them: both compile one program.
SHORT = ("--run.steps", "4", "--run.checkpoint-every", "2", "--run.sample-every", "1000")
SHORT += ("--run.steps-per-dispatch", "1")


class Child:
    """A run that started from a copy of `parent`, which is there no more."""

    def __init__(self, config: Path, parent: Path, run: Path):
        self.config, self.parent, self.run = config, parent, run
        self.taken = arrays(parent, 4)

    def words(self, run: Path, *more: str, start: str = "") -> tuple:
        start = start or f"{self.parent}@4"
        return ("train", self.config, "--workdir", run, "--init-from", start, *OTHER, *SHORT, *more)


def arrays(run: Path, step: int) -> dict[str, np.ndarray]:
    """The leaves of a checkpoint by label."""
    found = checkpoint.restore(run / "checkpoints", None, at=step, repair=False)
    return dict(zip(map(parents.label, found.manifest["leaves"]), found.state, strict=True))


@pytest.fixture(scope="module")
def family(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    found = trained("FULL").copy(folder / "parent")
    return Child(found.config, found.run, folder / "child")


@pytest.fixture
def child(family, verb):
    if not family.run.exists():
        code, out, err = verb(*family.words(family.run, "--init-optimizers"))
        assert code == 0, err
        assert "starts from G, D, the average, optimizers of parent, step 4" in out
        family.parent.rename(family.parent.with_name("gone"))
    return family


def test_a_run_records_what_it_took_and_from_whom(child):
    recorded = run_dir.read_run(child.run)["parent"]
    assert (recorded["run"], recorded["step"], recorded["fresh"]) == ("parent", 4, [])
    assert recorded["taken"] == ["ema", "ema_stats", "opt_state", "params", "stats"]
    gone = child.parent.with_name("gone")
    assert recorded["fingerprint"] == ledger(gone)[4]["fingerprint"]
    assert recorded["config_sha256"] == run_dir.read_run(gone)["config_sha256"]
    held = run_dir.taken_by(child.run)
    assert held.keys() == {n for n in child.taken if n.split("/")[0] in recorded["taken"]}
    for name, value in held.items():
        assert value.tobytes() == child.taken[name].tobytes(), name
    # It is a run of its own.
    lines = ledger(child.run)
    assert [line["step"] for line in lines] == ["0", "1", "2", "3", "4"]
    assert lines[0]["fingerprint"] != recorded["fingerprint"]


def test_the_average_goes_on_from_the_one_that_was_taken(child):
    """A ramp would forget it in the first step."""
    end = arrays(child.run, 4)

    def moved(name: str, since: str) -> float:
        return float(np.abs(end[name] - child.taken[since]).max())

    kernel = "up1/weight/kernel"
    assert moved(f"ema/{kernel}", f"ema/{kernel}") > 0
    raw = moved(f"params/g/{kernel}", f"params/g/{kernel}")
    # A share of 0.05 a step of what G moves.
    assert moved(f"ema/{kernel}", f"ema/{kernel}") < raw


@pytest.mark.parametrize("how", ["ema_ramp", "ema_cosine"])
def test_no_ramp_forgets_the_average_that_was_taken(how):
    """At step 0 both would keep nothing of it; without a parent they do."""
    config = dataclasses.replace(
        PLAIN, ema_half_life=1000, **{"ema_ramp": 0, "ema_cosine": 0, how: 10_000}
    )
    state = init_state(config, config.method.make(), {})
    ones = jax.tree.map(jnp.ones_like, state.params["g"])
    state = state.replace(
        ema=jax.tree.map(jnp.zeros_like, ones), params={**state.params, "g": ones}
    )
    share = 1 - 0.5 ** (config.batch_size / config.ema_half_life)
    for parent, want in (("", 1.0), ("runs/other", share)):
        own = dataclasses.replace(config, parent=Parent(run=parent))
        for leaf in jax.tree.leaves(step._average(own, state)):
            np.testing.assert_allclose(leaf, want, rtol=1e-5)


@pytest.mark.long
def test_it_is_proved_and_opened_without_its_parent(child, verb):
    code, out, _ = verb("replay", child.run)
    assert (code, out.splitlines()[-1]) == (0, "identical through step 4")
    assert anigan_jax.load(child.run).generate(2).shape == (2, 16, 16, 3)
    assert anigan_jax.load(child.run, "latest").step == 4


@pytest.mark.long
def test_it_starts_over_and_resumes_without_its_parent(child, verb, tmp_path):
    """Killed before its first checkpoint, then after it; the same command goes on."""
    again = Path(shutil.copytree(child.run, tmp_path / "again"))
    shutil.rmtree(again / "checkpoints")
    words = child.words(again, "--init-optimizers")
    assert verb(*words)[0] == 0
    assert ledger(again) == ledger(child.run)
    manifest.delete(again / "checkpoints", 4)
    code, out, _ = verb(*words)
    assert code == 0
    assert "resuming" in out
    assert ledger(again) == ledger(child.run)
    assert leaves(again, 4) == leaves(child.run, 4)
    code, out, _ = verb("train", "--resume", again)
    assert code == 0
    assert "is finished" in out


def test_another_parent_or_none_is_another_run(child, verb):
    for words in (
        child.words(child.run, "--init-optimizers", start="elsewhere@4"),
        child.words(child.run),
        ("train", child.config, "--workdir", child.run, *OTHER, *SHORT),
    ):
        code, _, err = verb(*words)
        assert code == 2
        assert "holds another run: parent." in err
    code, _, err = verb("train", "--resume", child.run, "--init-from", "elsewhere")
    assert code == 2
    assert "keeps its own settings" in err


def test_a_run_in_place_of_its_config_goes_on_with_its_parent(child, verb):
    code, out, err = verb("train", child.run, "--workdir", f"{child.run}/", "--dry-run")
    assert code == 0, err
    assert out.endswith(f"resumes {child.run} at step 4\n")
    other = child.run.with_name("other")
    code, out, err = verb("train", child.run, "--workdir", other, "--dry-run")
    assert code == 0, err
    assert "starts from" not in out


def test_what_was_kept_of_the_parent_is_verified(child, verb, tmp_path):
    changed = Path(shutil.copytree(child.run, tmp_path / "changed"))
    data = bytearray((changed / run_dir.PARENT).read_bytes())
    data[-1] ^= 1
    (changed / run_dir.PARENT).write_bytes(data)
    code, _, err = verb("replay", changed)
    assert code == 2
    assert "checksum" in err


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A parent whose networks are twice as wide."""
    widths = [f"--method.{part}.base-channels=8" for part in ("generator", "discriminator")]
    return untrained(tmp_path_factory.mktemp("wide") / "run", "FULL", *widths)


def test_layers_that_do_not_fit_are_named(wide, verb, tmp_path):
    start = ("train", wide.parent / "tiny_config.py", "--workdir", tmp_path / "run", "--dry-run")
    code, _, err = verb(*start, "--init-from", wide)
    assert code == 2
    assert "params/g/rgb/weight/kernel: float32[4, 4, 8, 3] there, float32[4, 4, 4, 3] here" in err
    assert "--init-fitting takes" in err
    # What the person chose otherwise stands before the arrays.
    assert "setting method.generator.base_channels: 8 -> 4" in err
    assert err.index("setting method.") < err.index("params/")
    code, out, err = verb("train", wide, *start[2:], "--init-from", wide)
    assert code == 0, err
    code, out, err = verb(*start, "--init-from", wide, "--init-fitting")
    # All but the logit's bias and RGB's differ.
    assert code == 2
    assert "nothing of" in err
    code, out, _ = verb(*start, "--init-from", wide, "--method.generator.base-channels", 8)
    assert code == 2
    widths = ("--method.generator.base-channels", 8, "--init-fitting")
    code, out, _ = verb(*start, "--init-from", wide, *widths)
    assert code == 0
    assert "starts from G, D, the average of full, step 0; at random: d/down1/weight" in out
    assert verb(*start, "--init-from", wide, *widths, "--init-players", "g")[0] == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--init-from", "nowhere"), "not a run directory"),
        (("--init-from", "{}@7"), "no checkpoint of step 7; it has 0"),
        (("--init-from", "{}@best"), "no best checkpoint"),
        (("--init-from", "{}/checkpoints/step_000000000"), "full@0 names it"),
        (("--init-from", "{}@newest"), "neither 'best', 'latest' nor a step"),
        (("--init-from", "{}", "--init-players", "g,x"), "names x; choose from d, g"),
        (("--init-optimizers",), "give --init-from"),
        (("--init-from", "{}", "--freeze-d", "9"), "D has 2 layers before its logit: down1, down2"),
        (("--init-from", "{}", "--freeze-d", "1", "--init-fitting"), "layers at random"),
        (
            ("--init-from", "{}", "--freeze-d", "1", "--init-players", "g"),
            "D is not taken from another run",
        ),
    ],
)
def test_refusals(wide, verb, tmp_path, words, said):
    words = [word.format(wide) for word in words]
    config = wide.parent / "tiny_config.py"
    if said == "layers at random":
        words += ["--method.generator.base-channels", "8"]
    code, _, err = verb("train", config, "--workdir", tmp_path / "run", *words)
    assert code == 2
    assert said in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("player", ["g", "d"])
def test_moments_of_another_optimizer_are_not_taken(wide, verb, tmp_path, player):
    """RMSProp's mean squares have the names and shapes of Adam's second moments."""
    start = ("train", wide, "--workdir", tmp_path / "run", "--dry-run", "--init-from", wide)
    start += (f"--optimizers.{player}.name", "rmsprop", "--init-players", player)
    code, _, err = verb(*start, "--init-optimizers")
    assert code == 2
    assert f"setting optimizers.{player}.name: adam -> rmsprop" in err
    assert f"opt_state/{player}: another optimizer there" in err
    assert "without --init-optimizers the optimizers start afresh" in err
    assert verb(*start)[0] == 0
    code, out, _ = verb(*start, "--init-optimizers", "--init-fitting")
    assert code == 0
    assert out.endswith(f"at random: the optimizer of {player}\n")


def test_exported_weights_that_do_not_fit_are_no_run_to_train_as(wide, verb, tmp_path):
    start = ("train", wide, "--workdir", tmp_path / "run", "--dry-run", "--size", 32)
    for place, told in ((wide, True), (wide / "weights.safetensors", False)):
        code, _, err = verb(*start, "--init-from", place)
        assert (code, "uses the settings of that run" in err) == (2, told)
        assert "without --init-optimizers" not in err
        assert "--init-fitting takes" in err


def test_an_average_of_layers_at_random_begins_with_a_ramp(wide, tmp_path):
    """Its half-lives are long: it would show them for most of the run."""
    config = run_dir.config_of(wide, run_dir.read_run(wide))
    pack = packed(config, tmp_path / "cache")
    small = dataclasses.replace(config.method.generator, base_channels=4)
    for method, want in (
        (config.method, False),
        (dataclasses.replace(config.method, generator=small), True),
    ):
        own = dataclasses.replace(config, method=method, parent=Parent(str(wide), fitting=True))
        taken = transfer.take(own, tmp_path / "run", pack)
        run = tmp_path / str(want)
        run.mkdir()
        run_dir.open_run(own, run, pack, (), taken)
        assert transfer.ramps(run) is want
        made = Program(own, pack, {}, ramps=want)
        # What `step._average` asks.
        assert made.trained.parent.takes("g") is not want
        assert made.trained.parent.frozen(method) == own.parent.frozen(method)


@pytest.mark.parametrize("spelled", ["{}/", "{}@latest", "./{}", "x/../{}", "{absolute}"])
def test_the_same_parent_in_another_spelling_is_the_same_run(tmp_path, monkeypatch, spelled):
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(FULL, parent=Parent("e1"))
    pack, run = packed(FULL, tmp_path / "cache"), tmp_path / "run"
    run.mkdir()
    run_dir.open_run(config, run, pack, ())

    def named(text: str) -> str:
        own = dataclasses.replace(config, parent=Parent(text))
        return transfer.as_begun(own, run).parent.run

    assert named(spelled.format("e1", absolute=tmp_path / "e1")) == "e1"
    assert named("e1@8") == "e1@8"
    assert named("e2") == "e2"


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("speaker") / "run", "TEXT")


def test_exported_weights_alone_are_enough(speaker, tmp_path):
    """Their constants name the attributes, too."""
    alone = tmp_path / "friend.safetensors"
    shutil.copyfile(speaker / "weights.safetensors", alone)
    config = run_dir.config_of(speaker, run_dir.read_run(speaker))
    pack = packed(config, tmp_path / "cache")
    taken = {}
    for place in (alone, speaker):
        config = dataclasses.replace(config, parent=Parent(str(place)))
        taken[place] = transfer.take(config, tmp_path / "run", pack).arrays
    assert taken[alone].keys() == taken[speaker].keys()
    for name, value in taken[alone].items():
        assert value.tobytes() == taken[speaker][name].tobytes()
    other = dataclasses.replace(config.data, attributes=("eyes", "hair"))
    config = dataclasses.replace(config, data=other, parent=Parent(str(alone)))
    with pytest.raises(UserError, match="other attributes there"):
        transfer.take(config, tmp_path / "run", packed(config, tmp_path / "cache"))


@pytest.mark.parametrize("attributes", [("eyes", "hair"), ("hair", "eyes", "glasses")])
def test_embeddings_of_other_attributes_do_not_fit(speaker, tmp_path, attributes):
    """Not even where there are equally many classes: each column means another one."""
    config = run_dir.config_of(speaker, run_dir.read_run(speaker))
    data = dataclasses.replace(config.data, attributes=attributes)
    config = dataclasses.replace(config, data=data, parent=Parent(str(speaker)))
    pack = packed(config, tmp_path / "cache")
    with pytest.raises(UserError, match=r"params/d/embedding/weight/kernel: .* there"):
        transfer.take(config, tmp_path / "run", pack)
    config = dataclasses.replace(config, parent=Parent(str(speaker), fitting=True))
    taken = transfer.take(config, tmp_path / "run", pack)
    assert taken.record["fresh"] == ["d/embedding/weight", "g/embedding/weight"]
    assert "params/g/rgb/weight/kernel" in taken.arrays
    assert not any("embedding" in name for name in taken.arrays)


@pytest.mark.long
def test_frozen_layers_keep_their_bits_and_all_others_move(tmp_path):
    """Whatever the optimizer's state, and its weight decay, would add; on two devices."""
    optimizers = dict.fromkeys("gd", Optimizer("adamw", weight_decay=0.1))
    settings = {"optimizers": optimizers, "parent": Parent("elsewhere", freeze_d=2)}
    config = dataclasses.replace(PLAIN, ema_half_life=0, **settings)
    configs.check(config)
    first = drawn_state(config, {})
    first = first.replace(opt_state=jax.tree.map(jnp.abs, drawn(first.opt_state, 3)))
    end, _ = run_steps(config, packed(config, tmp_path).images, first, 1, devices=2)
    before, after = (weights(state) for state in (first, end))
    same = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    frozen = ("d/down1/", "d/down2/", "d/down2_norm/")
    assert same == {name for name in before if name.startswith(frozen)}
    assert len(same) == 4


def weights(state) -> dict[str, np.ndarray]:
    found = jax.tree_util.tree_leaves_with_path(state.params)
    return {parents.label(jax.tree_util.keystr(path)): np.asarray(leaf) for path, leaf in found}


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def test_a_layer_fits_as_a_whole():
    """A kernel whose spectral vector is of another length starts at random with all of it."""
    there = {
        "params/g/a/weight/kernel": leaf(2, 3),
        "stats/g/spectral/a/weight/u": leaf(3),
        "params/g/a/bias": leaf(3),
        "params/g/b/kernel": leaf(4),
        "params/d/c/kernel": leaf(5),
        "opt_state/g/mu/b/kernel": leaf(4),
    }
    here = there | {"stats/g/spectral/a/weight/u": leaf(4), "ema/b/kernel": leaf(4)}
    here["ema/a/weight/kernel"] = leaf(2, 3)
    found = fit(here, there, ("g",), optimizers=True)
    assert found.odd == ["stats/g/spectral/a/weight/u: float32[3] there, float32[4] here"]
    # An average of weights that are taken starts as they are.
    assert found.taken == {
        "params/g/a/bias": "params/g/a/bias",
        "params/g/b/kernel": "params/g/b/kernel",
        "ema/b/kernel": "params/g/b/kernel",
    }
    assert found.fresh == ["g/a/weight", "the optimizer of g"]
    assert fit(there, there, ("g", "d"), optimizers=True).taken.keys() == there.keys()
    found = fit(there, there | {"params/g/z/kernel": leaf(1)}, ("g",))
    assert found.odd == ["params/g/z/kernel: float32[1] there, absent here"]


def test_random_layers_of_two_discriminators_are_not_frozen():
    """A translation's layers are 'd/a/down1/weight', of each of its two."""
    settings = Parent(run="x", fitting=True, freeze_d=1)
    fresh = ["d/a/down1/weight", "d/b/down1/weight", "g/ab/rgb/weight"]
    found = Fit({"params/d/a/down2/weight/kernel": ""}, ["odd"], fresh)
    with pytest.raises(UserError, match=r"random weights: d/a/down1/weight, d/b/down1/weight$"):
        refuse(settings, found, frozenset({"down1", "down1_norm"}))
    refuse(settings, found, frozenset({"down2"}))


def test_the_place_of_a_checkpoint(tmp_path):
    odd = tmp_path / "me@home"
    odd.mkdir()
    assert parents.place(str(odd)) == (odd, None)
    assert parents.place(f"{odd}@best") == (odd, "best")
    assert parents.place("runs/a@40") == (Path("runs/a"), "40")


def test_runs_of_before_keep_their_identity():
    assert not any(name.startswith("parent") for name in configs.identity(FULL))
    taken = dataclasses.replace(FULL, parent=Parent("runs/a@best"))
    changed = configs.differences(configs.identity(FULL), configs.identity(taken))
    assert changed == ["parent.class: absent -> Parent", "parent.run: absent -> runs/a@best"]
    tree = json.loads(json.dumps(configs.to_json(taken)))
    assert configs.from_json(tree) == taken
    del tree["parent"]
    assert configs.from_json(tree) == FULL
