"""Labels of any kind, from the files to the verbs: attributes beside hair and eyes."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image
from sources import built, faces, write
from tiny import JUDGE, TEXT, arrays, run_steps, start, untrained

from anigan_jax import api
from anigan_jax import config as configs
from anigan_jax.data import attributes, dataset
from anigan_jax.data.attributes import DEFAULT, HAIR, Attribute, tag
from anigan_jax.data.images import Images
from anigan_jax.data.synthetic import painted
from anigan_jax.data.synthetic.sources import PaintedFaces
from anigan_jax.errors import UserError
from anigan_jax.evaluation import prompt_accuracy
from anigan_jax.methods import text_conditioning
from anigan_jax.methods.text_conditioning import Encoder
from anigan_jax.sampling import prompts

page = prompts.record.table
NAMES = ("hair", "glasses", "smile")
WORN = (DEFAULT[0], tag("glasses"), tag("smile"))
DATA = PaintedFaces(count=80, size=16, test=0.3, attributes=NAMES)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return dataset.build(DATA, tmp_path_factory.mktemp("cache"), workers=1)


def test_painted_faces_wear_what_is_named_and_are_the_same_else(pack):
    assert pack.attributes == WORN
    plain, worn = painted.face(0, 3), painted.face(0, 3, ("glasses", "hat"))
    assert dataclasses.replace(worn, worn=()) == plain
    # Packs of other drawings are not taken; those without names stay good.
    assert {"named_version"} == {*DATA.key()} - {*PaintedFaces().key(), "attributes"}
    labels, names = pack.labels("train"), pack.examples()["names"]
    for row, name in zip(labels, names, strict=False):
        want = painted.label(painted.face(0, int(name), NAMES), NAMES)
        assert attributes.label_of(WORN, row) == want
    assert 10 < labels[:, 1].sum() < len(labels) - 10
    with pytest.raises(UserError, match="'beard'"):
        PaintedFaces(attributes=("beard",)).catalogue()


def _differ(one, other):
    """Rows and columns of the pixels in which two painted faces differ, and by how much most."""
    gap = np.abs(painted.draw(one)[0].astype(int) - painted.draw(other)[0]).max(-1)
    return np.argwhere(gap), gap


@pytest.mark.parametrize("index", range(3))
def test_a_smile_that_is_named_changes_the_mouth_alone_and_can_be_seen(index):
    face = painted.face(0, index, NAMES)
    smiling = dataclasses.replace(face, mouth="smile")
    corners = painted.draw(smiling)[1][48:, ::-1]
    for mouth in set(painted.MOUTHS) - {"smile"}:
        where, gap = _differ(smiling, dataclasses.replace(face, mouth=mouth))
        assert (gap > 30).sum() >= 40
        assert (where >= corners.min(0) - 4).all() and (where <= corners.max(0) + 3).all()
        # Faces that are told apart by nothing new are drawn as ever.
        plain = painted.face(0, index, ("glasses", "hat"))
        where, gap = _differ(*(dataclasses.replace(plain, mouth=m) for m in ("smile", mouth)))
        assert 0 < (gap > 30).sum() < 40


@pytest.mark.parametrize("worn", [("glasses",), ("hat",), painted.WORN])
def test_glasses_and_hats_hide_no_eye(worn):
    for index in range(4):
        face = painted.face(0, index)
        where, gap = _differ(face, dataclasses.replace(face, worn=worn))
        assert (gap > 30).sum() > 60
        eyes = painted.draw(face)[1][36:48].reshape(2, 6, 2).mean(1)[:, ::-1]
        # An eye reaches 0.082 of the side to its left and right and 0.098 up, under the lash.
        assert np.linalg.norm(where[None] + 0.5 - eyes[:, None], axis=-1).min() > 0.095 * 64


@pytest.mark.parametrize("config", [TEXT, JUDGE], ids=["text_gan", "classifier"])
@pytest.mark.long
def test_three_attributes_train(config, pack):
    config = dataclasses.replace(config, data=DATA)
    _, state = start(config, pack)
    _, lines = run_steps(config, arrays(config, pack), state, 2)
    assert np.isfinite(lines["loss/d"]).all()
    if config is JUDGE:
        assert {f"accuracy/{name}" for name in NAMES} <= lines.keys()


# --- combinations that are too many to be listed


@pytest.fixture
def few_places(monkeypatch):
    monkeypatch.setattr(attributes, "PLACES", 10)


def test_of_many_combinations_those_of_the_data_have_a_place(few_places, pack):
    found = pack.labels("train")
    made = text_conditioning.tables(Encoder(), found, pack.attributes)
    rows = made["combinations"]
    assert len(rows) == len(np.unique(found, axis=0)) < 48
    assert made["counts"].sum() == len(found)
    assert (made["counts"] > 0).all()
    index = jax.jit(text_conditioning.place)(made, found)
    assert (rows[index] == found).all()
    assert attributes.of_arrays(made) == WORN
    # Asked for are also those that no image has.
    every = np.indices((12, 2, 2)).reshape(3, -1).T
    texts = TEXT.method.texts(made)
    absent = [row for row in every if tuple(row) not in set(map(tuple, rows.tolist()))]
    prompts = [text_conditioning.Prompt("", attributes.label_of(WORN, row)) for row in absent]
    vectors = texts.encode(prompts)
    assert (vectors == attributes.one_hot(WORN, np.array(absent))).all()
    groups = prompt_accuracy.groups(texts, 0)
    assert len(groups["seen"]) == len(rows)
    assert 0 < len(groups["unseen"]) <= len(absent)
    seen = {tuple(sorted(p.label.items())) for p in groups["seen"]}
    assert not seen & {tuple(sorted(p.label.items())) for p in groups["unseen"]}


def test_a_wrong_text_may_differ_in_one_attribute():
    rows = attributes.combinations((2, 2, 2))
    counts, own = jax.numpy.ones(8), jax.numpy.zeros(300, int)
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = text_conditioning.wrong_texts(rows, counts, own, keys, "one_part")
    assert set(np.asarray(drawn).tolist()) == {1, 2, 4}
    drawn = text_conditioning.wrong_texts(rows, counts, own, keys, "any")
    assert set(np.asarray(drawn).tolist()) == set(range(1, 8))


def test_a_wrong_text_may_differ_in_each_attribute_equally_often():
    """Whatever the number of their classes; of one attribute as often as the data has each."""
    rows = np.asarray(attributes.combinations((12, 2, 2)))
    counts = jax.numpy.ones(48).at[4].set(5.0)
    keys = jax.random.split(jax.random.key(0), 3000)

    def drawn(rule, counts, own=0):
        own = jax.numpy.full(len(keys), own)
        return np.asarray(text_conditioning.wrong_texts(rows, counts, own, keys, rule))

    parts = rows[drawn("each_part", counts)] != rows[0]
    assert (parts.sum(1) == 1).all()
    np.testing.assert_allclose(parts.mean(0), 1 / 3, atol=0.03)
    np.testing.assert_allclose((drawn("each_part", counts) == 4).mean(), 5 / 15 / 3, atol=0.02)
    assert (rows[drawn("one_part", counts)] != rows[0]).mean(0)[0] > 0.8
    # Both of the last two at once are never seen: what leads there is not drawn.
    counts = counts * ~rows[:, 1:].all(1)
    parts = rows[drawn("each_part", counts, own=1)] != rows[1]
    np.testing.assert_allclose(parts.mean(0), [1 / 2, 0, 1 / 2], atol=0.03)
    # Where no neighbor exists the rule takes any other.
    alone = jax.numpy.zeros(48).at[0].set(1).at[47].set(1)
    assert set(drawn("each_part", alone).tolist()) == {47}


# --- the verbs


STYLED = ("style", "hair")
OPTIONS = ("--data.count", "80", "--data.attributes", *NAMES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return (
        untrained(folder / "a", "TEXT", *OPTIONS, "--data.without", "blue hair glasses"),
        untrained(folder / "b", "JUDGE", *OPTIONS),
    )


def test_prompts_in_the_words_of_the_data(runs, verb):
    run, _ = runs
    code, out, err = verb("sample", run, "--prompt", "blue_hair, smile, glases", "--n", 3)
    assert code == 0, err
    assert "'glases' is not known; did you mean 'glasses'" in err
    assert len(err.splitlines()) == 1
    assert Image.open(out.split()[-1]).height == 18 + 2
    code, _, err = verb("sample", run, "--prompt", "red eyes")
    assert code == 2
    assert "blonde; glasses, smile" in err


def test_a_file_of_prompts_by_its_name(runs, verb):
    code, out, err = verb("sample", runs[0], "--prompts", "sjtu_table_iv", "--n", 1)
    assert code == 0, err
    assert Image.open(out.split()[-1]).height == 12 * 18 + 2
    code, _, err = verb("sample", runs[0], "--prompts", "sjtu_table_x")
    assert code == 2
    assert "sjtu_table_iii, sjtu_table_iv, sjtu_table_v" in err


def test_images_of_seeds_are_a_labeled_set(runs, tmp_path, verb):
    """What each shows stands beside them, as `anigan import` reads it; other rows stay."""
    folder, model = tmp_path / "made", api.load(runs[0]).model
    for words in (("0-29",), ("26-39",), ("50,60", "--prompt", "red hair", "--prompt", "glasses")):
        code, _, err = verb("sample", runs[0], "--seeds", *words, "--out", folder)
        assert code == 0, err
    table = (folder / "tags.csv").read_text().splitlines()
    assert table[0] == "file,hair,glasses,smile"
    assert [line.split(",")[0] for line in table[1:41]] == [f"{i:04d}.png" for i in range(40)]
    words = ("--out", tmp_path / "pack", "--size", 16, "--test", 0, "--attributes", *NAMES)
    assert verb("import", folder, *words)[0] == 0
    found = dataset.open_pack(tmp_path / "pack")
    assert len(found.images) >= 40
    files = {np.asarray(Image.open(path)).tobytes(): path.name for path in folder.glob("*.png")}
    order = [files[image.tobytes()] for image in found.images]
    labels = {
        name: {a.name: a.classes[n] for a, n in zip(found.attributes, row, strict=True)}
        for name, row in zip(order, found.labels("train"), strict=True)
    }
    for seed in range(40):
        (want,) = prompts.from_data(model.texts, 1, seed)
        assert labels[f"{seed:04d}.png"] == dict(want.label)
    named = {name: label for name, label in labels.items() if len(name) > len("0000.png")}
    assert {x["hair"] for name, x in named.items() if "red_hair" in name} == {"red"}
    # What the user has changed or added stays, byte for byte; a last line may lack its end.
    own = (folder / "tags.csv").read_text().replace("0001.png,", "0001.png,my ", 1)
    own += '"my\n1.png",red,0,1\nmy2.png,blue,0,0'
    (folder / "tags.csv").write_text(own)
    assert verb("sample", runs[0], "--seeds", "1,71", "--out", folder)[0] == 0
    after = (folder / "tags.csv").read_text()
    assert after.startswith(own + "\n0071.png,")
    assert after.count("\n") == own.count("\n") + 2
    # A table of other columns, or in another encoding, is none of ours.
    head = ",".join(("file", *NAMES))
    large = f'{head}\n"{"x" * 200_000}",red,0,0\n'
    for held in (b"picture,by\n", f"{head}\n写.png,red,0,0\n".encode("cp932"), large.encode()):
        (folder / "tags.csv").write_bytes(held)
        code, _, err = verb("sample", runs[0], "--seeds", "70", "--out", folder)
        assert code == 0
        assert "stays as it is" in err
        assert (folder / "tags.csv").read_bytes() == held


def test_the_table_of_any_two_attributes(runs, verb):
    heights = {}
    for words in ((), ("--rows", "smile", "--columns", "glasses"), ("--columns", "hair")):
        path = verb("table", runs[0], *words)[1].split()[-1]
        # Above the rows stand the names of the columns.
        heights[path] = Image.open(path).height // 18 - 1
    assert list(heights.values()) == [12, 2, 2]


def test_a_table_keeps_the_other_attributes(runs, verb, monkeypatch):
    """Cells differ in what the rows and columns are alone; a prompt says what the rest is."""
    asked = []
    ask = prompts.ask
    monkeypatch.setattr(
        prompts, "ask", lambda model, full, *rest: asked.append(full) or ask(model, full, *rest)
    )
    cells = ("--rows", "smile", "--columns", "glasses")
    for words, hair in (((), None), (("--prompt", "blue hair"), "blue")):
        code, out, err = verb("table", runs[0], *cells, *words, "--seed", 3)
        assert code == 0, err
        assert ("blue_hair" in out) == bool(words)
        # An encoder that reads letters is given some.
        assert len({prompt.text for prompt in asked[0]}) == 4
        labels = [prompt.label for prompt in asked.pop()]
        assert len(labels) == len({tuple(sorted(x.items())) for x in labels}) == 4
        (one,) = {x["hair"] for x in labels}
        assert hair in (None, one)
    # By itself the table shows what the prompt leaves.
    assert verb("table", runs[0], "--prompt", "blue hair")[0] == 0
    assert {tuple(p.label) for p in asked.pop()} == {("hair", "glasses", "smile")}
    # One attribute alone, whichever flag names it.
    for words in (
        ("--columns", "hair", "--prompt", "glasses, smile"),
        ("--prompt", "glasses, smile"),
    ):
        assert verb("table", runs[0], *words)[0] == 0
        assert {p.label["glasses"] + p.label["smile"] for p in asked.pop()} == {"glassessmile"}
    for words in ((*cells, "--prompt", "smile"), ("--prompt", "blue hair, smile, no glasses")):
        code, _, err = verb("table", runs[0], *words)
        assert code == 2
        assert "the prompt names" in err


def test_cells_without_a_text_are_white(runs, tmp_path, monkeypatch):
    """A file of vectors may lack some: of the others only those cells are made."""
    model, shown = api.load(runs[0]).model, []

    def encode(asked):
        if any(p.label["smile"] == "smile" and p.label["glasses"] == "glasses" for p in asked):
            raise UserError("no caption")
        return model.texts.encode(asked)

    monkeypatch.setattr(prompts.record, "table", lambda x, *rest: shown.append(x) or page(x, *rest))
    fitting = prompts.Prompt("", {"hair": "red", "smile": "smile", "glasses": "glasses"})
    lacking = model._replace(texts=model.texts._replace(encode=encode))
    prompts.table(lacking, runs[0], 0, "smile", "glasses", out=tmp_path / "t.png")
    prompts.table(model, runs[0], 0, "smile", "glasses", out=tmp_path / "all.png")
    some, every = shown
    nothing = model._replace(texts=model.texts._replace(encode=lambda asked: encode([fitting])))
    with pytest.raises(UserError, match="no caption"):
        prompts.table(nothing, runs[0], 0, "smile", "glasses", out=tmp_path / "none.png")
    white = (some == 255).all(axis=(2, 3, 4))
    assert white.sum() == 1
    assert (some[~white] == every[~white]).all()
    assert not (every == 255).all(axis=(2, 3, 4)).any()


def test_accuracy_of_every_attribute(runs, verb):
    code, out, err = verb("accuracy", runs[0], "--classifier", runs[1], "--n", 1, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert set(report["seen"]["prompts"]) == {*NAMES, "all"}
    assert set(report["unseen"]["by_class"]["glasses"]) <= {"glasses", "no glasses"}
    assert report["seen"]["pairs"] + report["unseen"]["pairs"] == 48
    # Blue hair with glasses was left out.
    assert report["unseen"]["pairs"] >= 2
    code, out, err = verb("accuracy", runs[0], "--classifier", runs[1], "--n", 1)
    assert " all " in next(line for line in out.splitlines() if "glasses" in line) + " "


def test_accuracy_of_what_both_know(runs, tmp_path, verb):
    judge = untrained(tmp_path / "c", "JUDGE", "--data.count", "80", "--data.attributes", *STYLED)
    code, out, err = verb("accuracy", runs[0], "--classifier", judge, "--n", 1, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert set(report["seen"]["prompts"]) == {"hair"}
    assert set(report["ceiling"]["prompts"]) == {"hair", "style", "both"}
    code, out, err = verb("accuracy", runs[0], "--classifier", judge, "--n", 1)
    assert code == 0, err


# --- packs


HEADED = "file,hair,glasses,artist\n" + "".join(
    f"{i}.png,{'red' if i % 2 else 'blue'},{i % 2},{('ann', 'bob', 'cy')[i % 3]}\n"
    for i in range(12)
)


def test_a_pack_of_a_table_with_a_header(tmp_path):
    path = write(tmp_path / "in", {**faces(12), "tags.csv": HEADED})
    pack = built(tmp_path, path)
    assert pack.attributes == (
        Attribute("hair", HAIR),
        tag("glasses"),
        Attribute("artist", ("ann", "bob", "cy")),
    )
    names = pack.examples()["names"]
    rows = dict(zip(names, pack.labels("train").tolist(), strict=True))
    assert rows["5.png"] == [HAIR.index("red"), 1, 2]
    assert pack.manifest["counts"] == {}
    again = built(tmp_path, path)
    assert again.path == pack.path
    only = built(tmp_path, path, attributes=("artist",), without=())
    assert [a.name for a in only.attributes] == ["artist"]
    assert only.manifest["sha256"] != pack.manifest["sha256"]
    part = built(tmp_path, path, without=("red hair, cy",))
    assert "5.png" not in part.examples()["names"]
    assert len(part.images) == 10
    with pytest.raises(UserError, match="import again with --attributes"):
        built(tmp_path, str(pack.path), attributes=("artist",))


def test_folders_are_classes_by_one_setting(tmp_path):
    kinds = {"Cats": faces(4), "big_dogs": faces(4, 4)}
    files = {f"train/{kind}/{n}": data for kind, part in kinds.items() for n, data in part.items()}
    path = write(tmp_path / "in", files)
    assert built(tmp_path, path).examples().keys() == {"names", "groups"}
    pack = built(tmp_path, path, attributes=("class",))
    assert pack.attributes == (Attribute("class", ("big dogs", "cats")),)
    assert sorted(pack.labels("train")[:, 0]) == [0] * 4 + [1] * 4
    made = text_conditioning.tables(Encoder(), pack.labels("train"), pack.attributes)
    assert made["texts"].shape == (2, 1, 2)
    flat = write(tmp_path / "flat", faces(3))
    with pytest.raises(UserError, match="one per class"):
        built(tmp_path, flat, attributes=("class",))
    with pytest.raises(UserError, match="has no labels"):
        built(tmp_path, flat, attributes=("glasses",))


def test_packs_of_before_open(tmp_path):
    """From before colors came from the data: their manifests name hair and eyes."""
    path = write(tmp_path / "in", {**faces(2), "tags.csv": "0,yellow hair red eyes\n1,red hair"})
    pack = built(tmp_path, path)
    assert "yellow" in dict(pack.attributes)["hair"]
    manifest = {**pack.manifest, "classes": {a.name: list(a.classes) for a in DEFAULT}}
    examples = {**pack.examples(), "hair": [-1, 5], "eyes": [9, -1]}
    (pack.path / "manifest.json").write_text(json.dumps(manifest))
    (pack.path / "examples.json").write_text(json.dumps(examples))
    old = dataset.open_pack(pack.path)
    assert old.attributes == DEFAULT
    assert old.labels("train").tolist() == [[-1, 9], [5, -1]]


def test_runs_of_before_know_no_setting_of_attributes():
    for data in (Images("x"), PaintedFaces()):
        config = dataclasses.replace(TEXT, data=data)
        assert "data.attributes" not in configs.identity(config)
        assert "attributes" not in (data.key() if isinstance(data, PaintedFaces) else {})
        other = dataclasses.replace(data, attributes=("hair",))
        assert "data.attributes" in configs.identity(dataclasses.replace(config, data=other))
