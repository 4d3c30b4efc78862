"""What users bring: their layouts of labels and images, and what they are told."""

import io
import json
import os
import tarfile
import zipfile

import files
import pytest
from archive_files import tar_entry, tar_of, zip_of
from sources import built, faces, scanned, write

from anigan_jax.data import dataset, pack_files, parquet
from anigan_jax.data.attributes import label
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError

COLORS = ("blue hair red eyes", "pink hair green eyes", "black hair blue eyes")
WANT = [
    label(hair=hair, eyes=eyes)
    for hair, eyes in (("blue", "red"), ("pink", "green"), ("black", "blue"))
]


def under(folder: str, contents: dict) -> dict:
    return {f"{folder}/{name}": data for name, data in contents.items()}


def lines(template: str) -> str:
    return "".join(
        template.format(i=i, text=text, tags=text.replace(" hair ", "_hair ").replace(" e", "_e"))
        for i, text in enumerate(COLORS)
    )


LAYOUTS = {
    "sidecar": {f"{i}.txt": f"1girl, solo, {c.replace(' hair', '_hair,')}, smile"
                for i, c in enumerate(COLORS)},
    "json beside": {f"{i}.json": json.dumps({"caption": c}) for i, c in enumerate(COLORS)},
    "jsonl": {"metadata.jsonl": lines('{{"file_name": "{i}.png", "text": "{text}"}}\n')},
    "hf csv": {"metadata.csv": "file_name,text\n" + lines("{i}.png,{text}\n")},
    "booru": {"tags.csv": "id,rating,tags\n" + lines("{i},s,1girl {tags} smile\n")},
    "raw": {"tags_clean.csv": "".join(f"{i},1girl:9\t{c.replace(' hair ', '_hair:7' + chr(9))}:5\n"
                                      for i, c in enumerate(COLORS))},
    "excel": {"tags.csv": ("id;tags\r\n" + lines('{i};"{text}"\r\n')).encode("utf-16")},
    "tsv": {"tags.tsv": lines("{i}\t{text}\n")},
    "zeros": {"tags.csv": lines("000{i},{text}\n")},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_label_layouts_are_read(layout, tmp_path):
    found = scanned(tmp_path, write(tmp_path / "x", {**faces(3), **LAYOUTS[layout]}), size=16)
    assert [item.label for item in found.items] == WANT
    assert not found.catalogue.ignored


def test_metadata_of_two_folders_is_of_the_images_beside_it(tmp_path):
    row = '{{"file_name": "0.png", "text": "{}"}}\n'
    layout = {**under("train", faces(1)), **under("test", faces(1, 5))}
    layout["test/0.png"] = layout.pop("test/5.png")
    for folder, text in (("train", COLORS[0]), ("test", COLORS[1])):
        layout[f"{folder}/metadata.jsonl"] = row.format(text)
    found = scanned(tmp_path, write(tmp_path / "x", layout), size=16)
    assert {i.name: i.label for i in found.items} == {
        "train/0.png": WANT[0],
        "test/0.png": WANT[1],
    }


def test_folders_named_by_colors_and_celeba(tmp_path):
    layout = {**under("blue_hair", faces(2)), **under("pink_hair", faces(2, 4))}
    found = scanned(tmp_path, write(tmp_path / "x", layout), size=16)
    assert {i.label["hair"] for i in found.items} == {"blue", "pink"}
    attributes = "3\nBlack_Hair Blond_Hair\n" + "0.png 1 -1\n1.png -1 1\n2.png -1 -1\n"
    layout = {**under("img", faces(3)), "list_attr_celeba.txt": attributes}
    found = scanned(tmp_path, write(tmp_path / "celeba", layout), size=16)
    assert [i.label.get("hair") for i in found.items] == ["black", "blonde", None]


def test_labels_without_a_color_are_said_to_have_none(tmp_path):
    rows = {"tags.csv": "0,glasses\n1,hat\n2,hat\n"}
    found = scanned(tmp_path, write(tmp_path / "x", {**faces(3), **rows}), size=16)
    assert [(f.code, f.detail) for f in found.findings] == [
        ("no attribute", "'hat' 2, 'glasses' 1")
    ]
    assert not found.catalogue.attributes


def test_labels_of_other_images_end_every_verb_with_1(tmp_path, verb):
    path = write(tmp_path / "x", {**faces(12), "tags.csv": "a0,blue hair\nb1,red hair\n"})
    train = ("train", "ucsd_sn_dcgan", "--workdir", tmp_path / "run", "--data.path", path)
    for words in (("check", path), ("import", path, "--out", tmp_path / "pack"), train):
        code, out, err = verb(*words)
        assert code == 1, out
        assert "tags.csv is for other images" in err
        assert "'a0'" in err and "'0.png'" in err
    assert verb("check", path, "--size", 16, "--tags", "none")[0] == 0
    code, _, err = verb(
        "check", path, "--tags", write(tmp_path / "y", {"t.csv": "no rows"}) + "/t.csv"
    )
    assert (code, "is not a label file" in err) == (2, True)


def test_what_is_not_read_is_counted_by_ending(tmp_path, verb):
    path = write(tmp_path / "x", {**faces(30), "1.txt": "x", "a.md": "", ".hidden": ""})
    out = verb("check", path, "--size", 16)[1]
    assert "Not read: 1 .md, 1 .txt, 1 hidden." in out
    out = verb("import", path, "--size", 16, "--out", tmp_path / "pack")[1]
    assert "not read: 1 .md, 1 .txt, 1 hidden" in out


def test_folders_that_are_no_colors_are_not_passed_over_in_silence(tmp_path, verb):
    """`check`, `import` and `train` say that they can be classes, unless that is asked."""
    path = write(
        tmp_path / "x", {**under("train/cat", faces(3)), **under("train/dog", faces(4, 5))}
    )
    out = verb("check", path, "--size", 16)[1]
    assert "--attributes class makes each of them a class" in out
    assert "dog 4, cat 3" in out
    pack = built(tmp_path, path, size=16)
    assert pack.manifest["counts"]["folders"] == 1
    assert "--data.attributes class" in "".join(pack_files.notes(pack.manifest))
    for settings in ({"attributes": ("class",)}, {"tags": "none"}):
        assert "folders" not in built(tmp_path, path, size=16, **settings).manifest["counts"]
    shards = {f"{i}.zip": zip_of(tmp_path / "a.zip", faces(2, i).items()).read_bytes()
              for i in range(2)}  # fmt: skip
    found = scanned(tmp_path, write(tmp_path / "shards", shards), size=16)
    assert "folders" not in {f.code for f in found.findings}


def test_a_training_says_what_it_does_not_use(tmp_path):
    rows = "0,blue hair red eyes\n1,pink hair\n7,,,\n"
    layout = {**faces(3), "bad.png": b"bad", "a.gif": b"GIF89a", "a.md": "", "tags.csv": rows}
    pack = built(tmp_path, write(tmp_path / "x", layout), size=80, policy="skip")
    assert pack_files.notes(pack.manifest) == [
        "left out    2 files: 2 format (a.gif: it is GIF; magick mogrify -format png FILE)",
        "not read    1 .md",
        "labels      3 images without one, 1 images without a class of an attribute, 1 rows that "
        "cannot be read",
        "note: 3 images are smaller than 80 px and were enlarged",
    ]
    assert pack_files.notes(built(tmp_path, write(tmp_path / "y", faces(2))).manifest) == []


def test_backgrounds_and_sprites_are_settings(tmp_path):
    path = write(tmp_path / "x", {"0.png": files.picture((9, 9, 9, 0), (24, 24), "RGBA")})
    usual = Images(path, size=64)
    assert not {"background", "upscale"} & usual.key().keys()
    got = built(tmp_path, path, size=64, background="#102030", upscale="nearest")
    assert (got.images == (16, 32, 48)).all()
    assert got.manifest["key"]["background"] == "#102030"
    with pytest.raises(UserError, match=r"data\.background is 'whit'"):
        built(tmp_path, path, background="whit")


def test_webdataset_shards_are_one_set(tmp_path):
    for shard in range(2):
        entries = [
            tar_entry(f"{i}.{end}", data=data)
            for i in range(shard * 20, shard * 20 + 20)
            for end, data in (
                ("jpg", files.noise_file(i, "JPEG")),
                ("txt", COLORS[i % 3].encode()),
                ("json", b"{}"),
            )
        ]
        tar_of(tmp_path / f"{shard:05}.tar", entries)
    found = scanned(tmp_path, str(tmp_path), size=16)
    assert len(found.items) == 40
    assert {i.name: i.label for i in found.items}["00001/21.jpg"] == WANT[0]
    assert found.catalogue.ignored == {".json": 40}


@pytest.mark.long
def test_parquet_files_are_read(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, split in enumerate(("train-00000-of-00001", "test-00000-of-00001")):
        images = [
            {"bytes": files.noise_file(10 * number + i), "path": f"{i}.png"} for i in range(3)
        ]
        table = pa.table({"image": images, "text": list(COLORS)})
        parquet.write_table(table, tmp_path / f"{split}.parquet")
    got = built(tmp_path, str(tmp_path), size=16)
    assert got.manifest["parts"] == {"train": [0, 3], "test": [3, 6]}
    hair = got.manifest["classes"]["hair"]
    assert [hair[c] for c in got.examples()["hair"]] == [w["hair"] for w in WANT] * 2
    alone = scanned(tmp_path, str(tmp_path / "train-00000-of-00001.parquet"), size=16)
    assert [item.label for item in alone.items] == WANT
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(UserError, match="not a readable Parquet"):
        built(tmp_path, str(tmp_path / "bad.parquet"))


def test_parquet_is_read_by_a_process_that_may_die(tmp_path):
    pa, written = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    written.write_table(pa.table({"image": [files.noise_file(0)], "text": ["a hat"]}), path)
    with pytest.raises(UserError, match="not a readable Parquet file: the decoder died"):
        parquet._asked(path, os._exit, 1)
    store, members, rows = parquet.opened(path)
    assert "pyarrow.parquet" not in parquet.__dict__
    assert (len(members), [row.text for _, row in rows]) == (1, ["a hat"])
    found = dict(store.read(["00000000", "00000007"]))
    assert found["00000000"] == files.noise_file(0)
    assert found["00000007"].code == "truncated"
    parquet.READER.end()


def test_what_holds_no_images_says_what_it_holds(tmp_path, verb):
    for name, hint in (("a.npz", "PIL.Image"), ("data.mdb", "LMDB")):
        path = write(tmp_path / name[0], {name: b"x"})
        code, _, err = verb("check", path)
        assert (code, "holds no images" in err, hint in err) == (2, True, True), err
        assert f"1 .{name.split('.')[1]}" in err
    inner = zip_of(tmp_path / "inner.zip", [("0.png", files.noise_file(0))]).read_bytes()
    code, out, _ = verb("check", zip_of(tmp_path / "archive.zip", [("a/images.zip", inner)]))
    assert (code, "unpack it first" in out) == (1, True)
    heic = write(tmp_path / "heic", {"0.heic": files.BAD["phone.heic"][0]})
    assert "magick mogrify -format jpg" in verb("check", heic)[1]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_content_tells_images_whatever_their_ending(tmp_path, kind):
    contents = {"0.png": files.noise_file(0), "1.jpe": files.noise_file(1, "JPEG"),
                "2": files.noise_file(2), "3.jpg_large": files.noise_file(3, "JPEG"),
                "4.dat": b"no image"}  # fmt: skip
    path = write(tmp_path / "x", contents)
    if kind == "zip":
        path = zip_of(tmp_path / "a.zip", contents.items())
    if kind == "tar":
        path = tar_of(tmp_path / "a.tar", [tar_entry(n, data=d) for n, d in contents.items()])
    found = scanned(tmp_path, str(path), size=16)
    assert len(found.order) == 4
    assert found.catalogue.ignored == {".dat": 1}


def test_links_are_followed_within_a_root_alone(tmp_path):
    cache = tmp_path / "cache"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    write(cache / "blobs", {f"{i:040x}": files.noise_file(i) for i in range(4)})
    for i in range(4):
        (snapshot / f"{i}.png").symlink_to(f"../../blobs/{i:040x}")
    (snapshot / "circle").symlink_to(tmp_path)
    secret = write(tmp_path / "secret", {"key.png": files.noise_file(9)})
    (snapshot / "escape.png").symlink_to(f"{secret}/key.png")
    refused = scanned(tmp_path, str(snapshot), size=16)
    assert {f.code for f in refused.findings} == {"link"}
    assert "--follow-links" in refused.findings[0].detail
    found = scanned(tmp_path, str(snapshot), size=16, follow_links=str(cache))
    assert len(found.items) == 4
    assert {f.file for f in found.findings} == {"escape.png", "circle"}
    # A cache itself: each picture once, by its link.
    (snapshot / "circle").unlink()
    (snapshot / "escape.png").unlink()
    assert len(scanned(tmp_path, str(cache), size=16).items) == 4


def test_several_sources_are_one_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for number in range(3):
        write(tmp_path / f"set_{number}", {**faces(2, 10 * number), "tags.csv": "0,red hair\n"})
    many = scanned(tmp_path, str(tmp_path / "set_0"), size=16, tags="none",
                   also=(str(tmp_path / "set_1"), "~/set_2"))  # fmt: skip
    pattern = scanned(tmp_path, str(tmp_path / "set_*"), size=16, tags="none")
    names = ["set_0/0.png", "set_0/1.png", "set_1/10.png", "set_1/11.png", "set_2/20.png",
             "set_2/21.png"]  # fmt: skip
    assert [i.name for i in many.items] == [i.name for i in pattern.items] == names
    keys = {
        json.dumps(Images(str(tmp_path / "set_0"), also=also).key())
        for also in ((), ("~/set_1",), ("~/set_2",))
    }
    assert len(keys) == 3
    with pytest.raises(UserError, match="nothing matches"):
        scanned(tmp_path, str(tmp_path / "no_*"))


@pytest.mark.long
def test_one_of_two_domains_is_chosen(tmp_path, verb):
    layout = {**under("trainA", faces(9)), **under("trainB", faces(8, 20)),
              **under("testA", faces(2, 40)), **under("testB", faces(3, 60))}  # fmt: skip
    path = write(tmp_path / "x", layout)
    whole = built(tmp_path, path, size=16)
    for domain, parts in (("a", (9, 2)), ("b", (8, 3)), ("both", (17, 5))):
        got = built(tmp_path, path, size=16, domain=domain)
        assert (len(got.part("train")), len(got.part("test"))) == parts
        assert got.manifest["sha256"] != whole.manifest["sha256"]
        dataset.verify(got)
    assert (built(tmp_path, path, size=16, domain="b").images == whole.part("trainB")).all()
    train = ("train", "ucsd_sn_dcgan", "--workdir", tmp_path / "run", "--data.path", path,
             "--data.policy", "skip", "--dry-run", "--batch-size", 8)  # fmt: skip
    code, _, err = verb(*train)
    assert (code, "--data.domain a, b or both" in err) == (2, True), err
    assert "9 images" in verb(*train, "--data.domain", "a")[1]
    with pytest.raises(UserError, match="one domain"):
        built(tmp_path, write(tmp_path / "one", faces(2)), domain="a")


def test_flat_drawings_are_no_bombs(tmp_path):
    drawing = files.picture((200, 30, 60), (1024, 1024), kind="BMP")
    path = tmp_path / "flat.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("0.bmp", drawing)
    assert path.stat().st_size < len(drawing) / 200
    assert len(scanned(tmp_path, str(path)).order) == 1
    with tarfile.open(tmp_path / "flat.tar.gz", "w:gz") as t:
        info, data = tar_entry("0.bmp", data=drawing)
        t.addfile(info, io.BytesIO(data))
    assert len(scanned(tmp_path, str(tmp_path / "flat.tar.gz")).order) == 1
