"""TensorFlow Datasets without TensorFlow: our builders, and prepared sets as a source."""

import dataclasses
import io
import json
import struct
import sys

import files
import numpy as np
import pytest
from tiny import PLAIN, anigan, arrays, drawn_state, packed, run_steps

from anigan_jax.data import archives, dataset, discover, ingest, tfds_source
from anigan_jax.data.images import Images
from anigan_jax.data.synthetic import painted
from anigan_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra 'tfds' is not installed")
pytest.importorskip("array_record", reason="the extra 'tfds' is not installed")
from anigan_jax.data import tfds_builders  # noqa: E402


def prepared(builder_class, folder, **settings):
    builder = builder_class(data_dir=folder, file_format="array_record", **settings)
    builder.download_and_prepare()
    assert "tensorflow" not in sys.modules
    return builder


@pytest.mark.long
def test_painted_faces(tmp_path):
    builder = prepared(tfds_builders.PaintedFaces, tmp_path, count=20, seed=3, size=32)
    source = tfds.builder_from_directory(builder.data_dir).as_data_source("train")
    assert len(source) == 20
    wanted = {painted.paint(3, i, 32).tobytes(): painted.face(3, i) for i in range(20)}
    names = builder.info.features["hair"].names
    for example in source:
        face = wanted.pop(example["image"].tobytes())
        assert names[example["hair"]] == face.hair
        np.testing.assert_allclose(example["landmarks"], painted.draw(face, 32)[1])
    assert not wanted
    # By name, as a TFDS user would.
    again = tfds.builder("painted_faces", data_dir=tmp_path, count=20, seed=3, size=32)
    assert again.info.splits["test"].num_examples == 2


def test_a_prepared_set_becomes_a_pack(tmp_path, verb):
    builder = prepared(tfds_builders.PaintedFaces, tmp_path, count=20, size=32)
    out = tmp_path / "pack"
    code, _, err = verb("import", f"tfds:{builder.data_dir}", "--size", 32, "--out", out)
    assert code == 0, err
    made = dataset.open_pack(out)
    assert made.manifest["parts"] == {"train": [0, 20], "test": [20, 22]}
    columns, classes = made.examples(), made.manifest["classes"]
    got = {(made.images[i].tobytes(), classes["hair"][columns["hair"][i]]) for i in range(20)}
    want = {(painted.paint(0, i, 32).tobytes(), painted.face(0, i).hair) for i in range(20)}
    assert got == want
    again = verb("import", f"tfds:{builder.data_dir}", "--size", 32, "--out", out)
    assert "unchanged" in again[1]
    settings = {"size": 32, "attributes": ("eyes",)}
    eyes = dataset.build(Images(f"tfds:{builder.data_dir}", **settings), tmp_path / "cache")
    assert [a.name for a in eyes.attributes] == ["eyes"]
    assert eyes.labels("train")[:, 0].tolist() == made.labels("train")[:, 1].tolist()
    with pytest.raises(UserError, match=r"'beard'.*eyes, hair"):
        Images(f"tfds:{builder.data_dir}", attributes=("beard",)).catalogue()


@pytest.mark.long
def test_a_prepared_set_trains(tmp_path):
    builder = prepared(tfds_builders.PaintedFaces, tmp_path, count=44, size=16)
    data = Images(f"tfds:{builder.data_dir}", size=16)
    config = dataclasses.replace(PLAIN, data=data)
    pack = packed(config, tmp_path / "cache")
    assert len(pack.images) == 44
    state, lines = run_steps(config, arrays(config, pack), drawn_state(config, {}), 2)
    assert int(state.step) == 2
    assert np.isfinite(lines["loss/d"]).all()


def test_tagged_faces(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.png").write_bytes(files.noise_file(i))
    (folder / "tags.csv").write_text("0,aqua hair red eyes\n1,pink hair blue eyes\n2,red hair\n")
    builder = prepared(tfds_builders.TaggedFaces, tmp_path / "tfds", source=str(folder))
    features = builder.info.features
    got = {
        e["name"].decode(): (
            features["hair"].int2str(e["hair"]),
            features["eyes"].int2str(e["eyes"]),
            e["image"].tobytes(),
        )
        for e in builder.as_data_source("train")
    }
    colors = {"0.png": ("aqua", "red"), "1.png": ("pink", "blue"),
               "2.png": ("red", "unknown"), "3.png": ("unknown", "unknown")}  # fmt: skip
    assert got == {
        name: (*pair, np.asarray(files.noise(int(name[0]))).tobytes())
        for name, pair in colors.items()
    }
    made = dataset.build(Images(f"tfds:{builder.data_dir}", size=32, test=0), tmp_path / "cache")
    assert made.manifest["counts"] == {"unlabeled": 2}
    assert sorted(made.examples()["eyes"])[:2] == [-1, -1]


def test_unpaired_faces(tmp_path):
    for number, side in enumerate(("trainA", "trainB", "testA", "testB")):
        folder = tmp_path / "set" / side
        folder.mkdir(parents=True)
        for i in range(2 + number):
            (folder / f"{i}.png").write_bytes(files.noise_file(10 * number + i))
    source = str(tmp_path / "set")
    builder = prepared(tfds_builders.UnpairedFaces, tmp_path / "tfds", source=source)
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert sizes == {"trainA": 2, "trainB": 3, "testA": 4, "testB": 5}
    made = dataset.build(Images(f"tfds:{builder.data_dir}", size=32), tmp_path / "cache")
    direct = dataset.build(Images(source, size=32), tmp_path / "cache")
    assert {k: b - a for k, (a, b) in made.manifest["parts"].items()} == sizes
    for part in sizes:
        assert {x.tobytes() for x in made.part(part)} == {x.tobytes() for x in direct.part(part)}


def test_bad_images_inside_are_refused_like_any_other(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(files.noise_file(0, "JPEG"))
    (folder / "half.jpg").write_bytes(files.half_jpeg())
    (folder / "tags.csv").write_text("0,aqua hair red eyes\n")
    builder = prepared(tfds_builders.TaggedFaces, tmp_path / "tfds", source=str(folder))
    with pytest.raises(UserError, match="truncated"):
        dataset.build(Images(f"tfds:{builder.data_dir}", size=32), tmp_path / "cache")


def stored_as(builder, kind: str) -> None:
    info = builder.data_path / "dataset_info.json"
    content = json.loads(info.read_text())
    content["fileFormat"] = kind
    info.write_text(json.dumps(content))


def as_tfrecord(builder) -> list:
    """Writes the set as TFRecord, in two shards each; its files."""
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    sources = {s: builder.as_data_source(s, deserialize_method=raw) for s in builder.info.splits}
    stored_as(builder, "tfrecord")
    written = []
    for split, source in sources.items():
        (path,) = tfds.builder_from_directory(builder.data_dir).info.splits[split].filepaths
        records = [source[i] for i in range(len(source))]
        path.write_bytes(b"".join(struct.pack("<Q4x", len(r)) + r + bytes(4) for r in records))
        written.append(path)
    return written


def test_tfrecord_gives_the_same_images_without_tensorflow(tmp_path, verb):
    builder = prepared(tfds_builders.PaintedFaces, tmp_path, count=12, size=16)
    source = Images(f"tfds:{builder.data_dir}", size=16)
    before = dataset.build(source, tmp_path / "a", workers=1)
    path, _ = as_tfrecord(builder)
    after = dataset.build(source, tmp_path / "b", workers=1)
    assert (after.images == before.images).all()
    assert after.examples() == before.examples()
    assert "tensorflow" not in sys.modules
    # Half a file, a length beyond its end, a format that is not read.
    whole = path.read_bytes()
    for broken in (whole[:-7], b"\xff" * 8 + whole[8:], b"x" + whole):
        path.write_bytes(broken)
        code, _, err = verb("check", f"tfds:{builder.data_dir}")
        assert (code, "is not a whole TFRecord file" in err) == (2, True), err
    path.write_bytes(struct.pack("<Q4x", 3) + b"\xff\xff\xff" + bytes(4))
    code, _, err = verb("check", f"tfds:{builder.data_dir}")
    assert (code, "the record at byte 0, is damaged" in err) == (2, True), err
    stored_as(builder, "riegeli")
    code, _, err = verb("check", f"tfds:{builder.data_dir}")
    assert (code, "file_format='array_record'" in err) == (2, True), err


@pytest.mark.long
@pytest.mark.parametrize(("name", "hint"), [("mnist", "not prepared"), ("nonsuch", "cannot be")])
def test_sets_that_are_not_there(tmp_path, name, hint):
    done = anigan("check", f"tfds:{name}", env={"TFDS_DATA_DIR": str(tmp_path)})
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_the_core_does_not_import_tfds():
    assert not hasattr(discover, "tfds")
    assert not hasattr(archives, "tfds")


class Flagged(tfds_builders._Builder, skip_registration=True):
    """What CelebA and CIFAR-100 have: flags one level below, and a name with `_`."""

    def _features(self):
        return {
            "image": tfds.features.Image(),
            "attributes": {"Smiling": np.bool_, "Eyeglasses": np.bool_},
            "coarse_label": tfds.features.ClassLabel(names=["fish", "tree"]),
            "young": np.bool_,
        }

    def _split_generators(self, _):
        return {"full": self._generate_examples()}

    def _generate_examples(self):
        for i in range(12):
            flags = {"Smiling": i % 2 == 0, "Eyeglasses": i % 3 == 0}
            rest = {"attributes": flags, "coarse_label": i % 2, "young": i < 6}
            yield i, {"image": io.BytesIO(files.noise_file(i)), **rest}


def test_flags_and_names_as_people_write_them(tmp_path, monkeypatch):
    builder = prepared(Flagged, tmp_path / "sets")
    wanted = ("smiling", "coarse label", "young")
    folder, options = str(builder.data_dir), discover.Options(attributes=wanted)
    found = tfds_source.survey(folder, "", options)
    assert [a.name for a in found.attributes] == [*wanted]
    # TFDS shuffles by key: an even one smiles and is a fish.
    said = {tuple(item.label[name] for name in wanted[:2]) for item in found.items}
    assert said == {("smiling", "fish"), ("no smiling", "tree")}
    assert sorted(item.label["young"] for item in found.items) == ["no young"] * 6 + ["young"] * 6
    # No split is called train, so none is held out by its name.
    assert {item.held for item in found.items} == {None}
    with pytest.raises(UserError, match="coarse label, eyeglasses, smiling, young"):
        tfds_source.survey(folder, "", options._replace(attributes=("hat",)))
    monkeypatch.setenv("HOME", str(tmp_path))
    home = folder.replace(str(tmp_path), "~")
    source = Images(f"tfds:{home}", size=8, attributes=("Coarse_Label",))
    made = dataset.build(source, tmp_path / "cache")
    assert made.manifest["classes"] == {"coarse label": ["fish", "tree"]}


def test_where_all_is_held_out_it_is_said():
    scan = ingest.Scan(None, [None], None, [], ["test"], [0], [], discover.Catalogue([1], [], []))
    with pytest.raises(UserError, match="none of 1 images can be used to train: all are held out"):
        dataset.refuse("skip", scan)
