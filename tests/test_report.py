"""The report of real runs: what it collects, its page without a browser, its event files."""

import base64
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browser, look, needs_browser, said, soon
from PIL import Image
from tiny import anigan, process_env, untrained, write_config

from anigan_jax.errors import UserError
from anigan_jax.report import collect, files, series
from anigan_jax.report import page as report_page
from anigan_jax.report import tables as report_tables
from anigan_jax.storage import metrics_file

HOSTILE = "</script><img src=x onerror=alert(1)>'\"ü"
FLOOR = {"kid-vgg16": 0.001, "coverage-vgg16": 0.9}
PROTOCOL = {"network": "vgg16", "sha256": "8" * 64, "seed": 0, "n": {"generated": 40}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a whole process, as that of test_cli (whose compilation it finds)."""
    folder = tmp_path_factory.mktemp("report")
    done = anigan("train", write_config(folder), "--workdir", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy to write into."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def judged(run: Path) -> Path:
    """Adds what evaluation, accuracy and probes would write, and warnings."""
    lines = [
        {"step": 4, "kid-vgg16": 0.02, "coverage-vgg16": 0.5},
        {"step": 8, "kid-vgg16": 0.03, "coverage-vgg16": None, "warnings": ["coverage fell"]},
    ]
    (run / "evaluation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "protocol.json").write_text(json.dumps({**PROTOCOL, "floor": FLOOR}))
    (run / "best.json").write_text('{"step": 4, "kid": 0.02}')
    columns = {"generated": 0.03, "like_floor": 0.04, "floor": 0.001}
    one = {
        "n": 1000,
        "train": 40,
        "held_out": 4,
        "scores": {"kid-vgg16": columns, "fd-vgg16": dict.fromkeys(columns)},
        "refused": {"fd-vgg16": "too few images for a covariance"},
        "memorization": {"pixels": {"ratio": 0.5, "fake": 1.0, "held_out": 2.0}},
        "lpips": {"generated": {"mean": 0.3, "error": 0.01, "pairs": 20}},
        "modes": {"hit": 5, "held": 9, "both": 4, "cells": 132, "tv": 0.5, "kl": float("inf")},
    }
    (run / "evaluate").mkdir()
    panel = {
        "step": 8,
        "protocols": {"vgg16": PROTOCOL},
        "sets": {"generated": one},
        "l1": {"cycle/a": 0.25},
    }
    for step in (4, 8):
        path = run / "evaluate" / f"step_{step:09d}.json"
        path.write_text(json.dumps({**panel, "step": step}))
        Image.new("RGB", (40, 20), "red").save(path.with_name(f"{path.stem}_closest.png"))
    (run / "probe").mkdir()
    (run / "accuracy").mkdir()
    share = {"value": 0.5, "low": 0.25, "high": 0.75, "right": 5, "n": 10}
    parts = dict.fromkeys(("hair", "eyes", "both"), share)
    seen = {"pairs": 1, "prompts": parts, "by_class": {"hair": {"aqua": share}}}
    kinds = {"logistic": {"accuracy": share}, "neighbors": {"accuracy": share}}
    spaces = {key: {"numbers": 64, **kinds} for key in ("d", "untrained", "pixels")}
    task = {"classes": {"brown": [5, 5]}, "chance": share, "spaces": spaces}
    refused = {"eyes": "no brown eyes"}
    probed = {"step": 8, "n": 2, "seed": 0, "tasks": {"hair": task}, "refused": refused}
    (run / "probe" / "step_000000008.json").write_text(json.dumps(probed))
    told = {"step": 8, "n": 2, "seed": 0, "ceiling": {"prompts": parts}, "seen": seen}
    (run / "accuracy" / "step_000000008_seed_0.json").write_text(json.dumps(told))
    return run


class Page(HTMLParser):
    """Elements of a page, with what they ask for."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.asked, self.inside, self.texts = [], [], [], {}
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.asked += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "poster")]
        assert not [k for k, _ in attrs if k.startswith("on")], attrs
        if tag in ("script", "style"):
            self.inside.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.remove(tag)

    def handle_data(self, data):
        if self.inside:
            self.texts[self.inside[-1]][-1] += data

    @property
    def data(self) -> dict:
        return json.loads(self.texts["script"][0])


def test_the_dict_of_a_run(run):
    found = collect.collect(judged(run), "mine")
    assert (found["name"], found["step"], found["images_seen"]) == ("tiny", 8, 64)
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    curve = found["curves"]["series"]["loss/g"]
    assert found["curves"]["x"] == list(range(1, 9))
    np.testing.assert_allclose(curve["low"], [m["loss/g"] for m in lines[1:]], rtol=1e-5)
    assert curve["high"] is None
    assert curve["numbers"]["last"] == lines[-1]["loss/g"]
    rate = [8 / m["images_per_sec"] for m in lines[1:]]
    np.testing.assert_allclose(found["seconds"], sum(rate), rtol=1e-9)
    # By hand: the leaves of the players' parameters as they are saved.
    manifest = json.loads((run / "checkpoints/step_000000008/manifest.json").read_text())
    of_g = [d for path, d in manifest["leaves"].items() if path.startswith(".params['g']")]
    assert found["parameters"]["g"] == sum(int(np.prod(d["shape"])) for d in of_g)
    assert found["settings"]["method.discriminator.spectral"] == "true"
    assert found["settings"]["method"] == "GAN"
    assert found["commands"]["train"][:3] == ["anigan", "train", str(run / "config.py")]
    assert found["ledger"]["first"] == {"step": 0, "fingerprint": lines[0]["fingerprint"]}
    assert found["ledger"]["gaps"] == []
    assert found["warnings"] == [{"step": 8, "text": "coverage fell"}]
    assert found["scores"]["floor"] == FLOOR
    assert found["scores"]["best"] == {"step": 4, "kid": 0.02}
    assert found["scores"]["series"]["coverage-vgg16"] == [0.5, None]
    assert found["panel"]["step"] == 8
    assert found["slides"]["steps"] == [4, 8]
    assert list(found["slides"]["panels"]) == ["ema", "samples"]


def test_the_verb_checks_draws_and_writes(run, verb):
    code, said, _ = verb("report", run)
    assert code == 0
    assert "run: 2 of 2 kept checkpoints have the recorded fingerprint\n" in said
    assert said.splitlines()[-1].startswith(f"{run / 'report.html'}  (")
    assert Image.open(next((run / "interpolate").glob("step_000000008_*.gif"))).n_frames == 60
    assert (run / "kernels" / "step_000000008.png").exists()
    assert not (run / "table").exists()
    page = Page(run / "report.html")
    assert "same" in page.text
    assert "differs" not in page.texts["script"][0]
    # A second time there is nothing to draw.
    before = {p: p.stat().st_mtime_ns for p in (run / "interpolate").iterdir()}
    assert verb("report", run)[0] == 0
    assert before == {p: p.stat().st_mtime_ns for p in (run / "interpolate").iterdir()}


def test_a_false_ledger_is_told(run, verb):
    path = run / "metrics.jsonl"
    lines = metrics_file.read_metrics(path)
    lines[4]["fingerprint"] = "00000bad"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line["step"] != 6))
    file = max(
        (run / "checkpoints/step_000000008/state").rglob("*"), key=lambda p: p.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    code, said, _ = verb("report", run)
    assert code == 0
    assert "LEDGER DIFFERS: 0 of 2 kept" in said
    assert "step 5 is followed by step 7, where a line is due every 1" in said
    assert re.search(r"step 4 has fingerprint [0-9a-f]{8}, recorded is 00000bad", said)
    assert "step 8 cannot be read" in said
    # Looking changes nothing: no checkpoint is set aside.
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "step_000000004",
        "step_000000008",
    ]
    page = Page(run / "report.html")
    assert [a for tag, a in page.tags if a.get("role") == "alert"]


def test_steps_between_logged_ones_are_no_gaps():
    lines = [{"step": step, "fingerprint": "00"} for step in (0, 10, 20, 40)]
    found = collect.ledger(lines, 10, [{"step": 15, "computed": "aa", "fault": None}])
    assert found["gaps"] == [[20, 40]]
    assert found["checked"][0]["state"] == "not recorded"
    assert collect.ledger(lines[:3], 10, None)["gaps"] == []
    assert collect.ledger([*lines[:3], lines[2]], 10, None)["gaps"] == [[20, 20]]
    assert collect.ledger(lines[1:3], 10, None)["gaps"] == [[0, 10]]
    assert collect.verdict(collect.ledger(lines[:3], 10, None))[0]
    assert not collect.verdict(found)[0]


def test_texts_without_the_data(tmp_path, verb, monkeypatch):
    """All that is drawn comes from the checkpoint: the pack is not even looked for."""
    run = untrained(tmp_path / "there", "TEXT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    code, said, _ = verb("report", run)
    assert code == 0
    assert "1 of 1" not in said  # no line was logged that it could be compared with
    assert "no step has been logged yet" in said
    for folder in ("table", "interpolate", "kernels"):
        assert list((run / folder).glob("step_000000000*")), folder
    assert not (tmp_path / "empty").exists()


def test_no_draw_runs_no_code_and_no_jax(run):
    mark = run / "executed"
    (run / "config.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nraise RuntimeError('here')\n"
    )
    code = (
        "import sys\nfrom anigan_jax import cli\n"
        f"try: cli.main(['report', {str(run)!r}, '--no-draw'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'jax' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=process_env(), check=False)
    assert done.returncode == 0, done.stderr
    assert "the checkpoints were not looked at" in done.stdout
    assert not mark.exists()


def test_what_cannot_be_built_is_left_out(run, verb):
    (run / "config.py").write_text("raise RuntimeError('not here')\n")
    code, said, _ = verb("report", run)
    assert code == 0
    assert "left out of run: the checkpoints are not looked at" in said
    assert "not here" in said
    (run / "config.py").unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "samples/step_000000004.png").write_bytes(b"no picture")
    code, said, _ = verb("report", run)
    assert code == 0
    assert "no checkpoint is here" in said
    assert f"left out: {run / 'samples/step_000000004.png'}" in said
    assert "no checkpoint is here" in Page(run / "report.html").text


def test_a_run_that_has_just_begun(run, verb):
    for path in run.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert verb("report", run, "--no-draw")[0] == 0
    assert "no step has been logged yet" in Page(run / "report.html").text
    (run / "metrics.jsonl").write_text('{"step": 0, "fingerprint": "00"}\n{"step": 1, "lo')
    assert verb("report", run, "--no-draw")[0] == 0


def test_a_page_asks_for_nothing_outside(run, verb):
    judged(run)
    assert verb("report", run, "--no-draw")[0] == 0
    page = Page(run / "report.html")
    assert page.asked
    assert all(asked.startswith(("data:", "#")) for asked in page.asked)
    for style in page.texts["style"]:
        assert "@import" not in style
        assert not re.search(r"url\((?!['\"]?data:)", style)
    policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for script in page.texts["script"][1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(page.texts["script"]) == 3
    assert (run / "report.html").stat().st_size < 8e6
    for part in (
        "KID (vgg16)",
        "too few images for a covariance",
        "coverage fell",
        "D before training",
        "of them among",
        "8" * 64,
    ):
        assert part in page.text, part
    assert "50.0 % [25.0, 75.0]" in page.text
    # Everything that is shown has a name for those who do not see it.
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    labeled = [a for tag, a in page.tags if a.get("role") == "img"]
    assert labeled and all(a["aria-label"] for a in labeled)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {asked[1:] for asked in page.asked if asked.startswith("#")} <= set(ids)


def test_hostile_names_stay_text(run, tmp_path, verb):
    told = json.loads((run / "run.json").read_text())
    told["name"] = HOSTILE
    told["overrides"] = ["--data.path", HOSTILE]
    told["config"]["data"][HOSTILE] = HOSTILE
    (run / "run.json").write_text(json.dumps(told))
    with (run / "metrics.jsonl").open("a") as file:
        line = {"step": 9, f"loss/{HOSTILE}": 1.0, "fingerprint": HOSTILE, "warnings": [HOSTILE]}
        file.write(json.dumps(line) + "\n")
    judged(run)
    path = run / "probe" / "step_000000008.json"
    path.write_text(path.read_text().replace("no brown eyes", HOSTILE.replace('"', "")))
    odd = run.with_name("<script>alert(1)<!-- \udc80")
    run.rename(odd)
    out = tmp_path / "page.html"
    assert verb("report", odd, "--no-draw", "--out", out)[0] == 0
    page = Page(out)
    assert len(page.texts["script"]) == 3
    assert page.data["runs"][0]["label"].startswith("<script>alert(1)<!-- ")
    assert all(a["src"].startswith("data:") for tag, a in page.tags if tag == "img")
    assert not set("<>&") & set(page.texts["script"][0])


BROKEN = {
    "run.json": "{",
    "run.json of another kind": '{"name": "x"}',
    "metrics.jsonl": '{"step": 0}\n{"step": 1,\n{"step": 2}\n',
    "metrics.jsonl of words": '{"step": 0, "loss/g": "high"}\n',
    "metrics.jsonl of lists": "[1]\n",
    "protocol.json": "[]",
    "best.json": '{"step": 4}',
    "evaluation.jsonl": '{"kid-vgg16": 1}\n',
    "weights.safetensors": "short",
    "evaluate/step_000000009.json": '{"step": 9, "sets": {"generated": {"n": 1}}}',
    "accuracy/step_000000009.json": "{}",
    "probe/step_000000009.json": "nothing",
    "probe/step_000000009.json of other tasks": '{"tasks": {"hair": {}}}',
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_damaged_folder_is_refused(run, verb, what):
    path = run / what.split(" of ")[0]
    path.parent.mkdir(exist_ok=True)
    path.write_text(BROKEN[what])
    code, _, error = verb("report", run, "--no-draw")
    assert code == 2
    assert error.startswith("error: ")
    assert str(path) in error
    assert not (run / "report.html").exists()


def test_where_the_page_goes(run, trained, tmp_path, verb, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both = run, trained
    for given, wanted in (
        ((run, "--out", "page.txt"), "--out page.txt must end in .html"),
        ((run, run.parent / "run"), "is given twice"),
        ((tmp_path / "none",), "is no run folder"),
        ((run, "--out", run / "run.json" / "page.html"), "cannot be written"),
    ):
        code, _, error = verb("report", *given, "--no-draw")
        assert code == 2
        assert wanted in error
    code, said, _ = verb("report", *both, "--no-draw")
    assert code == 0
    assert said.splitlines()[-1].startswith("report.html  (")
    page = Page(tmp_path / "report.html")
    labels = [one["label"] for one in page.data["runs"]]
    assert labels == collect.labels(list(both))
    assert len({label.split("/")[-1] for label in labels}) == 1
    assert {len(chart["series"]) for chart in page.data["charts"]} == {2}


def test_settings_that_differ(run):
    here, there = (collect.collect(run, name) for name in "ab")
    there["settings"] = {**there["settings"], "seed": "7", "more": "1"}
    rows = {row["name"]: row for row in report_page.setting_rows([here, there])}
    assert [name for name, row in rows.items() if row["differs"]] == ["seed", "more"]
    assert rows["more"]["values"] == [None, "1"]
    here["overrides"] = ["--batch-size", "8", "--data.no-edges"]
    rows = report_page.setting_rows([here])
    assert [row["name"] for row in rows if row["differs"]] == ["batch_size"]


def test_long_series_keep_their_extremes():
    n = 100_000
    draws = np.random.default_rng(0)
    values = draws.normal(size=n)
    values[[12_345, 77_777]] = 50, -60
    values[draws.integers(0, n, 500)] = np.nan
    steps = np.arange(1, n + 1)
    x, found = series.series(steps, values)
    assert len(x) == series.POINTS
    assert (x[0], x[-1]) == (1, n)
    assert (max(found["high"]), min(found["low"])) == (50, -60)
    assert found["numbers"]["highest"] == [50, 12_346]
    assert found["numbers"]["lowest"] == [-60, 77_778]
    edges = np.linspace(0, n, 601).astype(int)
    each = [values[a:b] for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(found["high"], [np.nanmax(v) for v in each], rtol=1e-5)
    np.testing.assert_allclose(found["low"], [np.nanmin(v) for v in each], rtol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_the_running_mean_is_that_of_the_curves(width):
    values = np.random.default_rng(width).normal(size=40)
    ones = np.ones(width)
    want = np.convolve(values, ones, "same") / np.convolve(np.ones(40), ones, "same")
    np.testing.assert_allclose(series.running_mean(values, width), want, rtol=1e-10)
    values[3:30] = np.nan
    mean = series.running_mean(values, width)
    assert np.isnan(mean[12:20]).all()
    np.testing.assert_allclose(mean[-1], values[-(width // 2 + 1) :].mean(), rtol=1e-10)


def test_nothing_is_no_series():
    x, found = series.series(np.arange(3), np.full(3, np.nan))
    assert found["mean"] == [None] * 3
    assert found["numbers"] is None
    assert x == [0, 1, 2]
    assert series.spaced(0, 5) == []
    assert series.spaced(100, 3) == [0, 50, 99]


def test_previews_are_few_and_small(tmp_path):
    noise = np.random.default_rng(0)
    (tmp_path / "samples").mkdir()
    for step in range(0, 1000, 10):
        image = Image.fromarray(noise.integers(0, 256, (80, 80, 3), dtype=np.uint8))
        image.save(tmp_path / "samples" / f"step_{step:09d}.png")
    found = files.slides(tmp_path)
    assert len(found["steps"]) == 24
    assert (found["steps"][0], found["steps"][-1]) == (0, 990)
    missing: list[str] = []
    whole = report_page._slides(found, 10**9, missing)
    size = sum(map(len, whole["panels"][0]["at"].values()))
    less = report_page._slides(found, size // 2, missing)
    assert size // 3 < sum(map(len, less["panels"][0]["at"].values())) <= size // 2
    assert (less["steps"][0], less["steps"][-1]) == (0, 990)
    big = report_page.embedded(_saved(tmp_path / "big.png", (3000, 1500)))
    assert (big["width"], big["height"]) == (1100, 550)


def _saved(path: Path, size) -> Path:
    Image.new("RGB", size, "red").save(path)
    return path


def test_the_newest_pictures_of_each_verb(tmp_path):
    for name in ("interpolate/step_000000009_seed_0", "interpolate/step_000000010_seed_3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        _saved(tmp_path / f"{name}.png", (4, 4))
        _saved(tmp_path / f"{name}.gif", (4, 4))
    for step in (5, 20):
        (tmp_path / f"translate/step_{step:09d}_ab").mkdir(parents=True)
        _saved(tmp_path / f"translate/step_{step:09d}_ab/rows.png", (4, 4))
    (tmp_path / "evaluate").mkdir()
    for end in ("ba", "closest", "ba_closest"):
        _saved(tmp_path / f"evaluate/step_000000020_{end}.png", (4, 4))
    found = files.pictures(tmp_path)
    assert [(one["verb"], one["caption"]) for one in found] == [
        ("interpolate", "step 10, seed 3"),
        ("translate", "step 20, A to B"),
        ("evaluate", "step 20, B to A"),
    ]
    assert [one["moving"] is None for one in found] == [False, True, True]


def test_any_json_becomes_tables():
    share = {"value": 0.5, "low": 0.4, "high": 0.6}
    value = {"a": 1, "b": {"x": share, "y": None}, "c": {"d": {"e": {"f": [1, 2]}}}}
    tables = report_tables.tables_of("t", value)
    assert [(t["title"], t["columns"], t["rows"]) for t in tables] == [
        ("t", [], [["a", "1"]]),
        ("t", ["", "x", "y"], [["b", "50.0 % [40.0, 60.0]", "-"]]),
        ("t: c: d", ["", "f"], [["e", "1, 2"]]),
    ]
    (rows,) = report_tables.tables_of("t", [{"u": 1}, {"u": 2.5}])
    assert rows["rows"] == [["0", "1"], ["1", "2.5"]]


def test_event_files(run, tmp_path, verb):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    judged(run)
    folder = tmp_path / "events"
    code, said, _ = verb("report", run, "--no-draw", "--tensorboard", folder)
    assert code == 0
    assert str(folder / "run") in said
    events = reader.EventAccumulator(str(folder / "run"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    lines = metrics_file.read_metrics(run / "metrics.jsonl")
    for key in ("loss/g", "images_per_sec", "accuracy/d"):
        found = events.Scalars(key)
        assert [event.step for event in found] == list(range(1, 9))
        np.testing.assert_allclose([e.value for e in found], [m[key] for m in lines[1:]], rtol=1e-6)
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("evaluation/coverage-vgg16")] == [
        (4, 0.5)
    ]
    assert {tag.split("/")[0] for tag in events.Tags()["images"]} == {"samples", "ema"}
    image = events.Images("samples")[-1]
    (tmp_path / "x.png").write_bytes(image.encoded_image_string)
    assert image.step == 8
    with (
        Image.open(tmp_path / "x.png") as got,
        Image.open(run / "samples/step_000000008.png") as want,
    ):
        np.testing.assert_array_equal(np.asarray(got.convert("RGB")), np.asarray(want))
    # Points are never there twice.
    before = sorted(p.name for p in (folder / "run").iterdir())
    code, _, error = verb("report", run, "--no-draw", "--tensorboard", folder)
    assert code == 2
    assert "holds event files already" in error
    assert sorted(p.name for p in (folder / "run").iterdir()) == before


def test_tensorboard_is_an_extra(run, verb, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    code, _, error = verb("report", run, "--no-draw", "--tensorboard", tmp_path / "x")
    assert code == 2
    assert "anigan_jax[tensorboard]" in error
    with pytest.raises(UserError, match="given twice"):
        collect.labels([run, run])


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """A page of one run, one of two, of which the second has a hostile name and other values."""
    folder = tmp_path_factory.mktemp("pages")
    one, two = (Path(shutil.copytree(trained, folder / name)) for name in ("one", "two"))
    judged(one)
    line = metrics_file.read_metrics(two / "metrics.jsonl")[-1]
    draws = np.random.default_rng(0)
    with (two / "metrics.jsonl").open("a") as file:
        for step in range(9, 800):
            values = {"loss/g": 5 + draws.normal(), "loss/d": 10 ** draws.normal()}
            file.write(json.dumps({**line, **values, "step": step}) + "\n")
    (two / "ema" / "step_000000004.png").unlink()
    runs = [collect.collect(one, "one"), collect.collect(two, HOSTILE)]
    runs[1]["settings"]["seed"] = "7"
    for name, shown in (("single", runs[:1]), ("both", runs)):
        assert report_page.write(shown, folder / f"{name}.html") == []
    return folder


@pytest.fixture(scope="module")
def driver():
    with browser() as found:
        yield found


# Distinct colors of each chart's pixels; an empty canvas has one.
COLORS = """return [...document.querySelectorAll('.plot canvas')].map(c => new Set(new Uint32Array(
  c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size)"""
# Texts with less contrast than WCAG AA asks of them, against what is painted behind them.
CONTRAST = """
const parts = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
  v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const color = parts(getComputedStyle(node).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
};
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !node.checkVisibility() || node.closest('.bar')) continue;
  const pair = [parts(getComputedStyle(node).color), behind(node)];
  const [a, b] = pair.map(light).sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) found.push(node.outerHTML.slice(0, 200));
}
return found;"""


@needs_browser
def test_charts_are_drawn_and_can_be_worked(pages, driver):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    assert look(driver, pages / "single.html") == []
    wanted = driver.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).charts.length"
    )
    colors = driver.execute_script(COLORS)
    assert len(colors) == wanted > 4
    assert min(colors) > 20
    chart = driver.find_element(By.CSS_SELECTOR, ".chart")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    canvas = chart.find_element(By.TAG_NAME, "canvas")
    picture = "return arguments[0].toDataURL()"
    before = driver.execute_script(picture, canvas)
    button = chart.find_element(By.CSS_SELECTOR, ".legend button")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert driver.execute_script(picture, canvas) != before
    button.click()
    assert driver.execute_script(picture, canvas) == before
    # The legend follows the pointer; a drag zooms in, a button shows all steps again.
    over = chart.find_element(By.CSS_SELECTOR, ".u-over")
    third = over.size["width"] // 3
    ActionChains(driver).move_to_element_with_offset(over, -third, 0).perform()
    place = chart.find_element(By.CSS_SELECTOR, ".at")
    soon(lambda: place.text in ("step 2", "step 3"))
    ActionChains(driver).click_and_hold().move_by_offset(third, 0).release().perform()
    reset = chart.find_element(By.CSS_SELECTOR, ".tools button")
    soon(lambda: reset.text == "Reset zoom")
    reset.click()
    soon(lambda: not reset.is_displayed())
    log = next(b for b in chart.find_elements(By.CSS_SELECTOR, ".tools button") if b.text == "Log")
    log.click()
    assert log.get_attribute("aria-pressed") == "true"
    assert driver.execute_script(COLORS)[0] > 20
    assert said(driver) == []


@needs_browser
def test_the_slider_shows_the_training(pages, driver):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    look(driver, pages / "both.html")
    figures = driver.find_elements(By.CSS_SELECTOR, "[data-slide]")
    assert len(figures) == 2

    def state():
        return [(f.find_element(By.TAG_NAME, "img").get_attribute("src"), f.text) for f in figures]

    slider, last = driver.find_element(By.ID, "step"), state()
    slider.send_keys(Keys.ARROW_LEFT)
    assert driver.find_element(By.ID, "step-told").text == "step 4"
    assert slider.get_attribute("aria-valuetext") == "step 4 of 8"
    first = state()
    assert first[0][0] != last[0][0]
    assert first[0][1] == "Averaged weights, step 4"
    # The second run has no average of step 4; its nearest is shown.
    assert first[1] == last[1]
    driver.find_element(By.CSS_SELECTOR, "#panels input[value=samples]").click()
    assert [text for _, text in state()] == ["Current weights, step 4"] * 2
    loaded = "return [...document.images].every(i => i.naturalWidth > 0)"
    soon(lambda: driver.execute_script(loaded))
    play = driver.find_element(By.ID, "play")
    play.click()
    assert play.text == "Pause"
    soon(lambda: play.text == "Play")
    assert [text for _, text in state()] == ["Current weights, step 8"] * 2
    assert said(driver) == []


@needs_browser
def test_several_runs_and_hostile_names(pages, driver):
    from selenium.webdriver.common.by import By

    assert look(driver, pages / "both.html") == []
    assert HOSTILE in driver.title
    assert not driver.find_elements(By.CSS_SELECTOR, "img[onerror], img[src=x]")
    names = {one.text for one in driver.find_elements(By.CSS_SELECTOR, ".chart .legend button")}
    assert any(name.startswith(HOSTILE) for name in names)
    left, right = driver.find_elements(By.CSS_SELECTOR, ".glance article")
    assert left.rect["y"] == right.rect["y"]
    assert left.rect["x"] < right.rect["x"]
    rows = driver.find_elements(By.CSS_SELECTOR, "#settings tbody tr")
    assert [row.text for row in rows if row.is_displayed()] == ["seed 0 7"]
    driver.find_element(By.ID, "all-settings").click()
    assert all(row.is_displayed() for row in rows)
    code = driver.find_element(By.CSS_SELECTOR, ".command code")
    assert code.get_attribute("textContent").startswith("anigan train ")
    button = driver.find_element(By.CSS_SELECTOR, ".copy")
    button.click()
    soon(lambda: button.text == "Copied")


@needs_browser
@pytest.mark.parametrize("name", ["single", "both"])
def test_a_phone_needs_no_sideways_scrolling(pages, driver, name):
    from selenium.webdriver.common.by import By

    assert look(driver, pages / f"{name}.html", 360, 740) == []
    for details in driver.find_elements(By.TAG_NAME, "details"):
        driver.execute_script("arguments[0].open = true", details)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 360
    assert min(driver.execute_script(COLORS)) > 20
    if name == "both":
        shown = driver.find_elements(By.CSS_SELECTOR, ".glance article")
        assert [one.is_displayed() for one in shown] == [True, False]
        driver.find_elements(By.CSS_SELECTOR, ".switch input")[1].click()
        assert [one.is_displayed() for one in shown] == [False, True]


@needs_browser
def test_light_and_dark_can_be_read(pages, driver):
    grounds = []
    for dark in (False, True):
        look(driver, pages / "both.html", dark=dark)
        ground = "return getComputedStyle(document.body).backgroundColor"
        grounds.append(driver.execute_script(ground))
        driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert driver.execute_script(CONTRAST) == []
    light, dark = (sum(map(int, re.findall(r"\d+", ground))) for ground in grounds)
    assert light > 3 * 200
    assert dark < 3 * 50
