"""Judging while training: no bit of the training changes, and the best checkpoint stays."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest
from tiny import CYCLE, FULL, JUDGE, packed, start, untrained

from anigan_jax.config import Run, check
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError
from anigan_jax.evaluation import features
from anigan_jax.metrics.feature_scores import kid_size, scores
from anigan_jax.runtime import signals
from anigan_jax.storage import checkpoint, metrics_file
from anigan_jax.training import artifacts, loop, online_eval

RUN = Run(
    steps=12,
    steps_per_dispatch=2,
    sample_every=12,
    checkpoint_every=2,
    keep_checkpoints=1,
    evaluate_every=4,
    evaluate_n=40,
    eval_network="random",
    devices=1,
)
# 10 or so of the faces are held out.
JUDGED = dataclasses.replace(FULL, data=PaintedFaces(count=60, size=16, test=0.2), run=RUN)


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory):
    """For `judged` too, which is older than what a single test patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "cache_home", lambda: tmp_path_factory.getbasetemp() / "home")
        yield


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(JUDGED, tmp_path_factory.mktemp("pack"))


def train(config, workdir, pack):
    with signals.caught() as stop:
        return loop.train(config, workdir, pack, (), stop)


def lines(run):
    return metrics_file.read_metrics(run / online_eval.LINES)


def prints(run):
    return {m["step"]: m["fingerprint"] for m in metrics_file.read_metrics(run / "metrics.jsonl")}


@pytest.fixture(scope="module")
def judged(pack, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "judged"
    assert train(JUDGED, run, pack) == 0
    return run


@pytest.mark.long
def test_it_changes_no_bit_of_the_training(judged, pack, tmp_path):
    config = dataclasses.replace(JUDGED, run=dataclasses.replace(RUN, evaluate_every=0))
    assert train(config, tmp_path / "run", pack) == 0
    assert prints(tmp_path / "run") == prints(judged)
    assert not (tmp_path / "run" / online_eval.LINES).exists()


def test_every_interval_is_judged_and_the_best_checkpoint_kept(judged):
    found = lines(judged)
    assert [line["step"] for line in found] == [4, 8, 12]
    best = json.loads((judged / online_eval.BEST).read_text())["step"]
    assert metrics_file.best(found).step == best
    assert checkpoint.steps(judged / "checkpoints") == sorted({best, 12})


def test_the_scores_are_those_of_the_state(judged, pack):
    """By hand, from the checkpoint."""
    method, like = start(JUDGED)
    state = checkpoint.restore(judged / "checkpoints", jax.tree.map(np.asarray, like)).state
    from anigan_jax.sampling import grids

    network = features.find("random")
    n = len(pack.part("test"))
    model = grids.model_of(method, state, {})
    made = grids.generated(model, grids.latents(method, n, 0))
    real = features.of_images(network, pack.part("train"))
    told = scores(features.of_images(network, made), real, 0, kid_size(n, len(real)))
    last = lines(judged)[-1]
    assert last.keys() == {"step", *(f"{name}-random" for name in told.values)}
    for name, value in told.values.items():
        assert last[f"{name}-random"] == pytest.approx(value, rel=1e-5, abs=1e-7)
    # Of 32 features a dozen images give no covariance.
    assert "fd" in told.refused


def test_the_floor_is_that_of_as_many_real_images(judged, pack):
    protocol = json.loads((judged / online_eval.PROTOCOL).read_text())
    held, train_images = pack.part("test"), pack.part("train")
    assert protocol["n"] == {"generated": len(held)}
    network = features.find("random")
    real = features.of_images(network, train_images)
    told = scores(features.of_images(network, held), real, 0, len(held)).values
    assert protocol["floor"] == pytest.approx({f"{k}-random": v for k, v in told.items()})
    assert protocol["sha256"] == network.sha256
    assert protocol["floor"]["variety-random"] == pytest.approx(1, abs=0.3)
    assert (protocol["weights"], protocol["best"]) == ("ema", metrics_file.RULE)


def test_refused_scores_are_recorded_and_told_once(judged, pack, tmp_path, capsys):
    """A covariance of 32 features needs more images than the dozen that are held out."""
    told = json.loads((judged / online_eval.PROTOCOL).read_text())["refused"]
    n = len(pack.part("test"))
    assert told == {"fd-random": f"a covariance of 32 features needs more than 32 images, not {n}"}
    method, state = start(JUDGED)
    networks = [features.find("random")]
    panel = online_eval.of_panel(networks, JUDGED, method, pack, tmp_path)
    panel(jax.tree.map(np.asarray, state), {})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: evaluations leave fd-random out: a covariance of 32 features")
    assert f"raise --run.evaluate-n (40) and hold more out ({n} are; --data.test)" in line


@pytest.mark.parametrize(("n", "test"), [(33, 0.3), (32, 0.3), (33, 0.0), (32, 0.0)])
def test_scores_that_mean_something_are_not_refused(tmp_path, capsys, n, test):
    """Also where none is held out: then as many as are made decide."""
    config = dataclasses.replace(
        JUDGED,
        data=PaintedFaces(count=200, size=16, test=test),
        run=dataclasses.replace(RUN, evaluate_n=n),
    )
    pack = packed(config, tmp_path / "pack")
    method, _ = start(config)
    online_eval.of_panel([features.find("random")], config, method, pack, tmp_path)
    refused = json.loads((tmp_path / online_eval.PROTOCOL).read_text()).get("refused", {})
    assert [*refused] == (["fd-random"] if n == 32 else [])
    assert ("fd-random" in capsys.readouterr().err) == (n == 32)


def test_a_run_from_before_refusals_were_recorded_goes_on(judged, pack, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(judged, run)
    protocol = json.loads((run / online_eval.PROTOCOL).read_text())
    refused = protocol.pop("refused")
    (run / online_eval.PROTOCOL).write_text(json.dumps(protocol))
    assert train(JUDGED, run, pack) == 0
    assert json.loads((run / online_eval.PROTOCOL).read_text())["refused"] == refused
    assert lines(run) == lines(judged)


def test_another_judge_is_any_that_there_is(pack, tmp_path, monkeypatch):
    """A classifier's run, or an entry of the config file; others are refused by name."""
    method, _ = start(JUDGED)

    def networks(name, **rest):
        run = dataclasses.replace(RUN, eval_network=name, **rest)
        config = dataclasses.replace(JUDGED, run=run)
        check(config)
        return [n.name for n in online_eval.Evaluator(config, method, pack, tmp_path).networks]

    assert networks(str(untrained(tmp_path / "judge", "JUDGE"))) == ["tiny"]
    for every in (4, 0):
        with pytest.raises(UserError, match=r"no feature network 'mine'; choose from vgg16, incep"):
            networks("mine", evaluate_every=every)
    own = features.find("random")._replace(name="mine")
    monkeypatch.setitem(features.NETWORKS, "mine", lambda path: own)
    assert networks("mine") == ["mine"]
    # Not asked to judge, it is not opened: its weights may be missing.
    monkeypatch.setitem(features.NETWORKS, "mine", None)
    assert networks("mine", evaluate_every=0) == []


def stopping_at(monkeypatch, step):
    """A SIGTERM arrives before the checkpoint of `step` is judged."""
    usual = artifacts.Artifacts.lines

    def write_and_stop(self, chunk, *rest):
        if chunk.end == step:
            signal.raise_signal(signal.SIGTERM)
        usual(self, chunk, *rest)

    monkeypatch.setattr(artifacts.Artifacts, "lines", write_and_stop)


@pytest.mark.long
@pytest.mark.parametrize("step", [6, 8])
def test_a_run_that_is_stopped_goes_on_with_the_same_scores(judged, pack, tmp_path, step):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stopping_at(patch, step)
        assert train(JUDGED, run, pack) == 128 + signal.SIGTERM
    assert checkpoint.steps(run / "checkpoints")[-1] == step
    # Nobody is kept waiting: step 8 is judged when the run goes on.
    assert [line["step"] for line in lines(run)] == [4]
    assert train(JUDGED, run, pack) == 0
    assert lines(run) == lines(judged)
    assert prints(run) == prints(judged)
    assert (run / online_eval.BEST).read_text() == (judged / online_eval.BEST).read_text()


def test_another_protocol_is_refused(judged, pack):
    run = dataclasses.replace(RUN, steps=14, evaluate_n=5)
    names = (online_eval.PROTOCOL, "run.json", online_eval.BEST)
    before = [(judged / name).read_text() for name in names]
    with pytest.raises(UserError, match="evaluated in another way"):
        train(dataclasses.replace(JUDGED, run=run), judged, pack)
    # Nothing was begun: its own settings still go on.
    assert [(judged / name).read_text() for name in names] == before
    assert [line["step"] for line in lines(judged)] == [4, 8, 12]


def test_a_start_makes_up_for_what_a_kill_left_out(judged, pack, tmp_path):
    """The preview and the name of the best, both written after the checkpoint that they are of."""
    run = tmp_path / "run"
    shutil.copytree(judged, run)
    (preview,) = run.glob("previews/samples/step_000000012.png")
    shown, best = preview.read_bytes(), (run / online_eval.BEST).read_text()
    preview.unlink()
    (run / online_eval.BEST).write_text("{}")
    (run / "previews/ema/step_000000012.png").unlink()
    assert train(JUDGED, run, pack) == 0
    assert preview.read_bytes() == shown
    assert (run / online_eval.BEST).read_text() == best
    # Asked for fewer steps than it has, it stays as it is.
    shorter = dataclasses.replace(JUDGED, run=dataclasses.replace(RUN, steps=6))
    before = (run / online_eval.LINES).read_text()
    assert train(shorter, run, pack) == 0
    assert (run / online_eval.LINES).read_text() == before


def test_the_best_is_known_where_a_run_goes_on_without_being_judged(pack, tmp_path):
    found = {"kid-random": 0.1, "variety-random": 0.95}
    text = "".join(json.dumps({"step": step, **found}) + "\n" for step in (2, 4))
    (tmp_path / online_eval.LINES).write_text(text)
    run = dataclasses.replace(RUN, evaluate_every=0)
    method, state = start(JUDGED)
    judge = online_eval.Evaluator(dataclasses.replace(JUDGED, run=run), method, pack, tmp_path)
    judge.begin(4, state, {}, 12)
    judge.checkpoint(12, state, signals.Stop())
    judge.close()
    assert judge.best().step == 2
    assert (tmp_path / online_eval.LINES).read_text() == text


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_the_weights_that_are_asked_for_are_judged(pack, tmp_path, monkeypatch, weights):
    config = dataclasses.replace(JUDGED, run=dataclasses.replace(RUN, eval_weights=weights))
    method, state = start(JUDGED)
    seen = []

    def made(model, *rest):
        seen.append(bool(model.state.ema))
        return pack.part("test")

    monkeypatch.setattr(online_eval.sample_quality, "made", made)
    online_eval.of_panel([features.find("random")], config, method, pack, tmp_path)(state, {})
    assert seen == [weights == "ema"]


def test_settings_that_cannot_be_judged_are_refused_before_anything_is_written(tmp_path):
    raw = dataclasses.replace(JUDGED, ema_half_life=0)
    with pytest.raises(UserError, match="eval_weights"):
        check(dataclasses.replace(raw, run=dataclasses.replace(RUN, eval_weights="ema")))
    with pytest.raises(UserError, match="evaluate_n"):
        check(dataclasses.replace(JUDGED, run=dataclasses.replace(RUN, evaluate_n=1)))
    classifier = dataclasses.replace(JUDGE, run=RUN)
    with pytest.raises(UserError, match="trains no generator"):
        train(classifier, tmp_path / "run", packed(classifier, tmp_path / "pack"))
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_translations_are_judged_by_direction(tmp_path):
    config = dataclasses.replace(CYCLE, run=RUN)
    pack = packed(config, tmp_path)
    method, state = start(config, pack)
    own = jax.tree.map(np.asarray, state)
    told = online_eval.of_panel([features.find("random")], config, method, pack, tmp_path)(own, {})
    floor = json.loads((tmp_path / online_eval.PROTOCOL).read_text())["floor"]
    assert told.keys() == floor.keys()
    assert {name.split("/")[0] for name in told} == {"ab", "ba"}
    assert told["ab/kid-random"] != told["ba/kid-random"]
    # Untrained ones are further from the domain than its own held-out images.
    assert told["ab/kid-random"] > floor["ab/kid-random"] + 0.01


@pytest.mark.long
def test_a_second_judge_stands_beside_the_first(pack, tmp_path):
    """Its scores, its floor, its identity; and it is part of how a run is judged."""
    judge = untrained(tmp_path / "judge", "JUDGE")
    both = dataclasses.replace(JUDGED, run=dataclasses.replace(RUN, eval_second=str(judge)))
    method, state = start(JUDGED)
    networks = online_eval.Evaluator(both, method, pack, tmp_path).networks
    assert [network.name for network in networks] == ["random", "tiny"]
    state = jax.tree.map(np.asarray, state)
    alone = online_eval.of_panel(networks[:1], JUDGED, method, pack, tmp_path)(state, {})
    path = tmp_path / online_eval.PROTOCOL
    assert "others" not in json.loads(path.read_text())
    with pytest.raises(UserError, match="evaluated in another way"):
        online_eval.of_panel(networks, both, method, pack, tmp_path)
    path.unlink()
    found = online_eval.of_panel(networks, both, method, pack, tmp_path)(state, {})
    assert {name: found[name] for name in alone} == alone
    assert {"kid-tiny", "variety-tiny", "coverage-tiny"} <= found.keys() - alone.keys()
    protocol = json.loads(path.read_text())
    assert protocol["others"][0]["sha256"] == networks[1].sha256
    assert {"kid-random", "kid-tiny"} <= protocol["floor"].keys()
    with pytest.raises(UserError, match="evaluated in another way"):
        online_eval.of_panel(networks[:1], JUDGED, method, pack, tmp_path)


def test_the_first_judge_decides_which_is_the_best():
    """Also where the second one finds a collapse that the first does not."""
    lines = [
        {"step": 1, **line(1, 0.3, 0.9), "kid-y": 0.1, "variety-y": 1.0},
        {"step": 2, **line(2, 0.2, 0.9), "kid-y": 0.9, "variety-y": 0.1},
    ]
    assert metrics_file.best(lines) == (2, 0.2, 0.9, metrics_file.RULE)
    directions = [{"step": 3, "ab/kid-x": 0.1, "ba/kid-x": 0.3, "ab/kid-y": 9.0, "ba/kid-y": 9.0}]
    assert metrics_file.best(directions).kid == pytest.approx(0.2)
    # Of transparent images both backgrounds count, in the KID and in the variety.
    clear = [
        {"step": 4, "kid-x-on-black": 0.1, "kid-x-on-white": 0.9, "kid-y-on-black": 0.0},
        {"step": 5, "kid-x-on-black": 0.3, "kid-x-on-white": 0.3, "variety-x-on-white": 0.9},
    ]
    assert metrics_file.best(clear) == (5, pytest.approx(0.3), 0.9, metrics_file.RULE)
    clear[1]["variety-x-on-white"] = 0.1
    assert metrics_file.best(clear).step == 4


def test_the_best_of_several_directions_is_the_best_mean():
    found = metrics_file.best(
        [
            {"step": 1, "ab/kid-x": 0.1, "ba/kid-x": 0.9},
            {"step": 2, "ab/kid-x": 0.4, "ba/kid-x": 0.4, "l1": 0.0},
            {"step": 3, "ab/kid-x": None, "ba/kid-x": None},
            {"step": 4, "l1": 0.1},
        ]
    )
    assert found == (2, pytest.approx(0.4), None, metrics_file.RULE)
    assert metrics_file.best([{"step": 1, "accuracy": 1.0}]) is None
    # KID may be negative, and the earliest of equals is taken.
    assert metrics_file.best([{"step": 5, "kid-x": -0.1}, {"step": 6, "kid-x": -0.1}])[0] == 5


def line(step, kid, variety):
    return {"step": step, "kid-x": kid, "variety-x": variety}


@pytest.mark.parametrize(
    ("lines", "step", "rule"),
    [
        # Collapsed, then varied, in both orders: KID does not decide between them.
        ([line(1, 0.1, 0.7), line(2, 0.3, 0.95)], 2, "RULE"),
        ([line(1, 0.3, 0.95), line(2, 0.1, 0.7)], 1, "RULE"),
        # Among varied ones it does, however varied they are.
        ([line(1, 0.3, 1.2), line(2, 0.2, 0.86)], 2, "RULE"),
        # All collapsed: the least so.
        ([line(1, 0.1, 0.5), line(2, 0.3, 0.8), line(3, 0.2, 0.8)], 2, "NONE_VARIED"),
        ([{**line(1, 0.1, 0.95), "ba/variety-x": 0.2}, line(2, 0.3, 0.9)], 2, "RULE"),
    ],
)
def test_a_collapsed_checkpoint_is_not_the_best(lines, step, rule):
    found = metrics_file.best(lines)
    assert (found.step, found.rule) == (step, getattr(metrics_file, rule))


def test_a_collapsed_set_that_wins_by_kid_is_not_the_best(pack, tmp_path, monkeypatch):
    """Made-up sets instead of a generator's: real faces, brighter, and faces all alike."""
    real = pack.part("train")[:40].astype(float)
    alike = real.mean(0) + 0.6 * (real - real.mean(0))
    sets = {1: real + 45, 2: alike, 3: real + 20}
    sets = {step: images.round().clip(0, 255).astype(np.uint8) for step, images in sets.items()}
    monkeypatch.setattr(
        online_eval.sample_quality, "made", lambda model, *rest: sets[int(model.state.step)]
    )
    method, state = start(JUDGED)
    networks = [features.find("random")]
    judge = online_eval.of_panel(networks, JUDGED, method, pack, tmp_path)
    lines = [{"step": s, **judge(state.replace(step=np.int32(s)), {})} for s in sets]
    kids, varieties = ([line[f"{name}-random"] for line in lines] for name in ("kid", "variety"))
    assert kids[1] < kids[0]
    assert varieties[1] < metrics_file.LEAST_VARIETY < min(varieties[0], varieties[2])
    assert metrics_file.best(lines[:2]).step == 1
    assert metrics_file.best(lines).step == 3


@pytest.mark.long
def test_warnings_are_written_and_said(pack, tmp_path, capsys, monkeypatch):
    from anigan_jax.training import health

    monkeypatch.setattr(health, "RULES", ((lambda window: True, "a sign"),))
    monkeypatch.setattr(health, "WINDOW", 5)
    config = dataclasses.replace(JUDGED, run=dataclasses.replace(RUN, steps=8, evaluate_every=0))
    assert train(config, tmp_path / "run", pack) == 0
    told = {
        m["step"]: m.get("warnings")
        for m in metrics_file.read_metrics(tmp_path / "run/metrics.jsonl")
    }
    # The line of step 0 counts too; only the step that fills the window is marked.
    assert [step for step, warnings in told.items() if warnings] == [4]
    assert told[4] == ["a sign"]
    assert capsys.readouterr().err.count("warning: step 4: a sign") == 1


def test_gradient_norms_are_recorded(judged):
    found = metrics_file.read_metrics(judged / "metrics.jsonl")[1:]
    assert all(np.isfinite(m["gradient/g"]) and m["gradient/g"] > 0 for m in found)
    assert all(m["gradient/d"] > 0 for m in found)
