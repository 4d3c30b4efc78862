"""Tables of a reproduction: which variants may be ahead, of what data, by which version."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError
from anigan_jax.reproduce import figures, numbers, plan, runner
from anigan_jax.reproduce.plan import Budget, Place
from anigan_jax.reproduce.reports import REPORTS

TINY = Budget("small", lambda training: (64, 8), 1 / 16, 8)


@pytest.fixture(autouse=True)
def without_networks(monkeypatch):
    """Whatever weights this machine has."""
    monkeypatch.setattr(plan, "networks", lambda: {"judge": "random", "features": ""})


def judged(work: plan.Work, name: str, count: int, way: str = "", **scores: float) -> None:
    """A run directory with the scores of its last step alone."""
    run = work.runs[name]
    (run.folder / "checkpoints" / f"step_{run.steps:09d}").mkdir(parents=True)
    line = {f"{way}{key.replace('_', '-')}": value for key, value in scores.items()}
    (run.folder / "evaluation.jsonl").write_text(json.dumps({"step": run.steps, **line}) + "\n")
    (run.folder / "metrics.jsonl").write_text("")
    told = {"n": {way.strip("/") or "generated": count}}
    (run.folder / "protocol.json").write_text(json.dumps(told))


def of_models(tmp_path: Path, counts: dict[str, int], collapsed: str = ""):
    """The table of Tsinghua's three models, the later the better by each score."""
    work = plan.plan(REPORTS["tsinghua"], plan.SMALL, Place(tmp_path, "FACES", "PHOTOS"))
    for i, (name, count) in enumerate(counts.items()):
        scores = {"kid_random": 3.0 - i, "fd_random": 30.0 - i, "coverage_random": 0.1 * i}
        scores["variety_random"] = 0.3 if name == collapsed else 1.0
        judged(work, name, count, "" if name == "dcgan" else "ab/", **scores)
    variants = {name: (name,) for name in counts}
    (table,) = numbers.scores(variants, {"dcgan": 100, "cyclegan": 300, "cartoongan": 100}, "x")(
        work
    )
    return " ".join(table.notes)


def test_scores_of_unequal_counts_rank_nothing_but_by_kid(tmp_path):
    notes = of_models(tmp_path / "a", {"dcgan": 700, "cyclegan": 366, "cartoongan": 366})
    assert "dcgan 700, cyclegan 366, cartoongan 366" in notes
    assert "KID (random): cartoongan" in notes
    assert "Coverage (random): " not in notes
    notes = of_models(tmp_path / "b", {"dcgan": 366, "cyclegan": 366, "cartoongan": 366})
    assert "Coverage (random): cartoongan" in notes
    assert "Images judged" not in notes


def test_a_collapsed_variant_is_not_ahead_by_kid(tmp_path):
    same = dict.fromkeys(("dcgan", "cyclegan", "cartoongan"), 366)
    notes = of_models(tmp_path, same, "cartoongan")
    assert "KID (random): cyclegan" in notes
    assert "Coverage (random): cartoongan" in notes
    assert "variety: cartoongan" in notes


def folder_of(path: Path, start: int, count: int = 40) -> str:
    path.mkdir()
    for i in range(start, start + count):
        Image.fromarray(painted.paint(0, i, 64)).save(path / f"{i:02}.png")
    return str(path)


def test_other_data_are_refused_before_anything_is_trained(tmp_path, monkeypatch):
    """Also where the experiment that is chosen has no run yet."""
    faces, others = (folder_of(tmp_path / name, at) for name, at in (("a", 0), ("b", 50)))
    place = Place(tmp_path / "work", faces)
    work = runner.opened(REPORTS["aiub"], TINY, place)
    begun = work.runs["faces"].folder
    begun.mkdir(parents=True)
    sha256 = runner.api.data_of(work.runs["faces"].config).manifest["sha256"]
    (begun / "run.json").touch()
    recorded = {"data_sha256": sha256}
    monkeypatch.setattr(runner.grid.collect, "recorded", lambda folder: recorded)
    tried: list[Path] = []

    def start(config, folder, command, stop):
        tried.append(folder)
        raise runner.DivergedError("not trained here")

    monkeypatch.setattr(runner.api, "start", start)
    other = plan.plan(REPORTS["aiub"], TINY, place._replace(data=others))
    with pytest.raises(UserError, match="trained on other data"):
        runner.reproduce(other, ("alternation",))
    assert not tried
    runner.reproduce(work, ("alternation",), lambda line: None)
    assert tried


def test_texts_of_other_attributes_are_refused_before_the_first_run(tmp_path):
    faces = folder_of(tmp_path / "faces", 0, 24)
    rows = "".join(f"{i:02}.png,{'long' if i % 2 else 'short'}\n" for i in range(24))
    (Path(faces) / "labels.csv").write_text("file,style\n" + rows)
    work = runner.opened(REPORTS["sjtu"], TINY, Place(tmp_path / "work", faces))
    with pytest.raises(UserError, match=r"labeled by hair and eyes, and those of .* have style"):
        runner.reproduce(work, ("ratios",))
    assert not (tmp_path / "work/runs").exists()


def test_an_older_result_stays_on_the_page(tmp_path, monkeypatch):
    work = plan.plan(REPORTS["csc412"], TINY, Place(tmp_path, "FACES"))
    (summaries,) = plan.chosen(work.report, ("summaries",))
    made = runner._made(work, summaries, {})
    assert not made.notes
    assert runner._stored(work, summaries) == made
    monkeypatch.setattr(runner.environment, "sources", lambda: "another version")
    old = runner._stored(work, summaries)
    assert old.shown == made.shown and old.notes == [runner.OLD]
    page = runner.page.write(work, {"summaries": old}).read_text()
    assert "2,734,531" in page and runner.OLD.split(";")[0] in page
    # It is made anew where it is asked for.
    assert not runner._made(work, summaries, {}).notes
    assert runner._stored(work, summaries).notes == []


def test_of_a_single_part_nobody_says_what_was_the_first(tmp_path, monkeypatch):
    from anigan_jax.evaluation import prompt_accuracy

    class Share:
        value = 0.9

    work = plan.plan(REPORTS["sjtu"], TINY, Place(tmp_path, "FACES"))
    for name in ("final", "color_judge"):
        judged(work, name, 8)
    monkeypatch.setattr(numbers, "loaded", lambda *args: type("Trained", (), {"model": None}))
    found = {"seen": {"prompts": {"hair": Share, "eyes": Share}}}
    monkeypatch.setattr(prompt_accuracy, "measure", lambda *args: found)
    for parts, told in (((40,), False), ((4, 40), True)):
        (table,) = numbers.right_colors({"final": 4}, "color_judge", parts)(work)
        assert any("ours has the hair right" in note for note in table.notes) == told
        assert np.shape(table.rows) == (len(parts), 3)


def test_the_loss_of_right_texts_is_without_that_of_texts_between():
    lines = [{"step": i, "loss/g": 3.0, "loss/g_between": 1.0 + i} for i in (1, 2)]
    lines.append({"step": 3, "loss/g": 3.0})
    assert numbers.mean(lines, "loss/g - loss/g_between", 0, 2) == pytest.approx(0.5)
    # A run without GAN-INT has right texts alone.
    assert numbers.mean(lines, "loss/g - loss/g_between", 2, 3) == 3.0
    assert numbers.mean(lines, "loss/g", 0, 3) == 3.0
    assert numbers.mean(lines, "loss/x - loss/g", 0, 3) is None


def test_captions_of_a_table_are_shown_with_images_that_have_them(tmp_path, monkeypatch):
    faces = folder_of(tmp_path / "faces", 0, 24)
    colors = [("blue", "red"), ("pink", "green"), ("blue", "green")]
    rows = [f"{i:02}.png,{h} hair {e} eyes" for i, (h, e) in enumerate(colors * 8)]
    (Path(faces) / "tags.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "asked.txt").write_text("pink hair green eyes\nblue hair\nblack hair red eyes\n")
    work = runner.opened(REPORTS["sjtu"], TINY, Place(tmp_path / "work", faces))
    judged(work, "final", 8)
    kept = []
    monkeypatch.setattr(figures, "_save", lambda work, sheet, name: kept.append(name) or tmp_path)
    monkeypatch.setattr(
        figures.record, "table", lambda images, names: kept.append((np.array(images), names))
    )
    monkeypatch.setattr(plan.Work, "picture", lambda self, path, caption: caption)
    (caption,) = figures.captioned("final", "Table III", str(tmp_path / "asked.txt"))(work)
    (images, names), name = kept
    assert names == ["pink hair green eyes", "blue hair"] and name == "final_table_iii_real"
    assert "no image of 'black hair red eyes'" in caption
    pack = runner.api.data_of(work.runs["final"].config)
    labels, part = pack.labels("train"), pack.part("train")
    told = [a.classes for a in pack.attributes]
    for made, (hair, eyes) in zip(images, (("pink", "green"), ("blue", None)), strict=True):
        for image in made:
            (row,) = np.flatnonzero((part == image).all((1, 2, 3)))
            assert told[0][labels[row, 0]] == hair
            assert eyes is None or told[1][labels[row, 1]] == eyes


def test_the_way_back_has_a_variety_of_its_own(tmp_path):
    work = plan.plan(REPORTS["tsinghua"], plan.SMALL, Place(tmp_path, "FACES", "PHOTOS"))
    for name, kid, variety in (("cyclegan", 3.0, 1.0), ("cyclegan_one_down", 1.0, 0.1)):
        there = {"ab/kid_random": 5.0 - kid, "ab/variety_random": 1.0}
        judged(work, name, 8, **there, **{"ba/kid_random": kid, "ba/variety_random": variety})
    variants = {name: (name,) for name in ("cyclegan", "cyclegan_one_down")}
    (table,) = numbers.scores(variants, dict.fromkeys(variants, 300), "x")(work)
    (ahead,) = (note for note in table.notes if note.startswith("Ahead here"))
    # One has collapsed on its way back, not on its way there.
    assert ahead.count("cyclegan_one_down") == 0 and ahead.count("cyclegan") == 2


def test_a_picture_that_is_gone_is_made_again(tmp_path):
    work = plan.plan(REPORTS["csc412"], TINY, Place(tmp_path, "FACES"))
    summaries = work.report.experiments[0]
    runner._made(work, summaries, {})
    path = runner._result(work, summaries)
    told = json.loads(path.read_text())
    told["shown"].append(plan.Picture("figures/x.png", "x")._asdict())
    path.write_text(json.dumps(told))
    assert runner._stored(work, summaries) is None
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/x.png").touch()
    assert runner._stored(work, summaries).shown[-1] == plan.Picture("figures/x.png", "x")


def test_what_no_report_has_is_not_called_a_share_of_one(tmp_path):
    place = Place(tmp_path, "FACES", "PHOTOS", features="vgg16")
    runs = plan.plan(REPORTS["sjtu"], plan.SMALL, place).runs
    assert "of the config's" in runs["color_judge"].budget()
    assert "of the report's" in runs["final"].budget()
    # Two updates of G a step are more than one.
    assert "whatever its schedule repeats" in runs["ratio_5"].budget()
    assert "VGG" not in runs["final"].budget()
    runs = plan.plan(REPORTS["tsinghua"], plan.SMALL, place).runs
    assert "content by VGG16, not VGG19" in runs["cartoongan"].budget()
    assert "VGG" not in runs["cyclegan"].budget()
