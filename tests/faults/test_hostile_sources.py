"""Rows 18, 31, 33, 34 and 35: sources that lie, are named oddly, change, are poor, or kill."""

import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import time
import zipfile

import files
import numpy as np
import pytest
from archive_files import raw_name, special, tar_entry, tar_of, zip_of
from sources import Deadly, built, faces, scanned, write

from anigan_jax.data import archives, dataset, diff, ingest
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.report import data as check
from anigan_jax.report.table import as_text

GOOD = files.noise_file(1)


def nested(levels: int) -> bytes:
    """42.zip: archives within archives, zeros at the bottom."""
    data, name = b"\0" * 2**20, "0.png"
    for level in range(levels):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
            for i in range(16):
                z.writestr(f"{level}-{i}-{name}", data)
        data, name = buffer.getvalue(), "more.zip"
    return data


def hostile_archives(folder) -> dict:
    """An archive of every entry that must not be read, and what each is called."""
    link, device = special("link.png", 0o120000), special("disk.png", 0o060000)
    entries = [(raw_name("../../up.png"), GOOD), (raw_name("/etc/root.png"), GOOD)]
    entries += [(link, b"/etc/passwd"), (device, b""), ("A.png", GOOD), ("a.png", GOOD)]
    zip_of(folder / "a.zip", entries)
    tar = [tar_entry("../up.png", data=GOOD), tar_entry("/etc/root.png", data=GOOD)]
    tar += [tar_entry("soft.png", tarfile.SYMTYPE, link="/etc/passwd")]
    tar += [tar_entry("hard.png", tarfile.LNKTYPE, link="/etc/passwd")]
    tar += [tar_entry("disk.png", tarfile.BLKTYPE), tar_entry("one.png", data=GOOD)]
    tar_of(folder / "a.tar", [*tar, tar_entry("one.png", data=GOOD)])
    (folder / "42.zip").write_bytes(nested(3))
    return {
        "a.zip": {"path", "link", "special", "repeated"},
        "a.tar": {"path", "link", "special", "repeated"},
        "42.zip": {"format"},
    }


@pytest.mark.long
@pytest.mark.fault(18)
def test_hostile_archives_write_nothing_anywhere(tmp_path, monkeypatch, verb):
    """The verb itself: told by name, refused, and every folder as it was."""
    (tmp_path / "in").mkdir()
    want = hostile_archives(tmp_path / "in")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # What was hashed is remembered where it is older than this: by a slow machine.
    monkeypatch.setattr("anigan_jax.data.remembered.YOUNG", 1e9)
    monkeypatch.chdir(tmp_path / "in")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    for name, reasons in want.items():
        code, _, err = verb("import", name, "--out", tmp_path / "pack", "--size", 16)
        assert code == 2, name
        for reason in reasons:
            assert f": {reason}" in err, (name, reason)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    # What is good in them may be used where that is asked for.
    skip = ("--size", 16, "--policy", "skip", "--test", 0)
    assert verb("import", "a.zip", "--out", tmp_path / "pack", *skip)[0] == 0
    assert dataset.open_pack(tmp_path / "pack").examples()["names"] == ["A.png"]


def many(count: int, comment: bytes = b"") -> bytes:
    """A zip of `count` entries that says it has one; a comment lies before its end."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0,
                        1, 0, 0, 0, 0, 0, 0)  # fmt: skip
    last = entry[:32] + struct.pack("<H", len(comment)) + entry[34:] + b"a" + comment
    directory = (entry + b"a") * (count - 1) + last
    return directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 0, 0)


# The end of a 64-bit zip, which says that there is one small entry.
WIDE = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, 47, 0)


@pytest.mark.fault(18)
@pytest.mark.parametrize("comment", [b"", WIDE])
def test_a_zip_of_more_entries_than_it_says(tmp_path, monkeypatch, comment):
    """zipfile reads them all, at half a kilobyte each, whatever number the zip gives."""
    path = tmp_path / "a.zip"
    path.write_bytes(many(40, comment))
    assert len(zipfile.ZipFile(path).infolist()) == 40
    monkeypatch.setattr(archives, "MAX_ENTRIES", 40)
    assert [code for _, code, _ in archives.members(path)[1]] == ["repeated"] * 39
    monkeypatch.setattr(archives, "MAX_ENTRIES", 39)
    with pytest.raises(UserError, match="40 entries"):
        archives.members(path)


@pytest.mark.fault(18)
@pytest.mark.parametrize("decoy", [False, True])
@pytest.mark.parametrize("comment", [0, 100, 65_535])
def test_a_64_bit_zip_of_more_entries_than_it_says(tmp_path, monkeypatch, decoy, comment):
    """Its record is where zipfile looks for it, whatever looks like one in the locator."""
    data = many(40)[:-22]
    wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, len(data), 0)
    said = struct.unpack("<Q", b"PK\6\6\0\0\0\0")[0] if decoy else len(data)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, said, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 1, 0, comment) + bytes(comment)
    path = tmp_path / "a.zip"
    path.write_bytes(data + wide + locator + end)
    try:
        assert len(zipfile.ZipFile(path).infolist()) == 40
    except zipfile.BadZipFile:
        assert decoy, "newer versions look where the locator says"
    monkeypatch.setattr(archives, "MAX_ENTRIES", 39)
    with pytest.raises(UserError, match="40 entries"):
        archives.members(path)
    if not decoy:
        monkeypatch.setattr(archives, "MAX_ENTRIES", 40)
        assert [code for _, code, _ in archives.members(path)[1]] == ["repeated"] * 39


@pytest.mark.fault(18)
def test_two_million_entries_are_refused_at_once(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(many(archives.MAX_ENTRIES + 1))
    start = time.process_time()
    with pytest.raises(UserError, match="2,000,001 entries"):
        archives.members(path)
    # zipfile takes half a minute and a gigabyte for them.
    assert time.process_time() - start < 3


@pytest.mark.long
@pytest.mark.fault(18)
def test_a_tar_of_very_many_empty_entries(tmp_path):
    """Fifty megabytes of headers in fifty kilobytes: no bomb by what must lie in memory."""
    header = tarfile.TarInfo("x.png").tobuf(tarfile.USTAR_FORMAT)
    # A gzip file may be several, one after the other.
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header * 10_000) * 10)
    start = time.process_time()
    found, findings = archives.members(tmp_path / "a.tar.gz")
    assert time.process_time() - start < 30
    assert len(found) == 1
    assert [code for _, code, _ in findings] == ["repeated"] * 99_999


ODD = [
    b"with blanks  in it.png",
    b"line\nbreak.png",
    "\U0001f600 face.png".encode(),
    b"caf\xe9 latin.png",
    b"x" * 251 + b".png",
    b"same.png",
    b"SAME.PNG",
    b"-rf.png",
    b"$(touch mark).png",
    b"a'b\"c`d.png",
    b"[a-z]*?.png",
    "i\u0307 \u0130 \u0131 I.png".encode(),
]


@pytest.mark.fault(31)
def test_oddly_named_images_are_taken_in_the_order_of_their_bytes(tmp_path):
    folder = tmp_path / "a b\nc \U0001f600 [x]"
    folder.mkdir()
    for i, name in enumerate(ODD):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(files.noise_file(i))
    (tmp_path / "linked").symlink_to(folder)
    found = [built(tmp_path, str(path)) for path in (folder, tmp_path / "linked")]
    names = [os.fsencode(name) for name in found[0].examples()["names"]]
    assert names == sorted(ODD)
    assert found[0].manifest["sha256"] == found[1].manifest["sha256"]
    for name, image in zip(names, found[0].images, strict=True):
        want = np.asarray(files.noise(ODD.index(name)).resize((32, 32), 1))
        assert (image == want).all(), name
    report = as_text(check.tables(check.summary(str(folder), scanned(tmp_path, str(folder)))))
    report.encode("ascii", "backslashreplace").decode()


@pytest.mark.fault(31)
def test_an_oddly_named_pack_and_what_its_killed_import_left(tmp_path):
    path = write(tmp_path / "x", faces(3))
    for name in ("p [1] *\n\U0001f600", os.fsdecode(b"caf\xe9"), "x" * 240):
        out = tmp_path / "out" / name
        stale = out.parent / f".{name}-killed_0"
        stale.mkdir(parents=True)
        (stale / "lock").touch()
        # One that was made just now may be another import's.
        os.utime(stale, (1, 1))
        other = out.parent / ".p 1 q\n\U0001f600-other"
        other.mkdir(exist_ok=True)
        made, _ = dataset.import_to(Images(path, size=16, test=0), out, workers=1)
        dataset.verify(made)
        assert not stale.exists()
        assert other.exists(), "a name is no pattern"
    with pytest.raises(UserError, match="cannot be written"):
        dataset.import_to(Images(path, size=16, test=0), tmp_path / ("x" * 255), workers=1)


def edited(folder):
    (folder / "0.png").write_bytes(files.noise_file(50))


def labeled_anew(folder):
    text = (folder / "tags.csv").read_text()
    (folder / "tags.csv").write_text(text.replace("red hair", "blue hair"))


CHANGES = {
    "added": (lambda f: (f / "9.png").write_bytes(files.noise_file(9)), ["added train/9.png"]),
    "removed": (lambda f: (f / "2.png").unlink(), ["removed train/2.png"]),
    "edited": (edited, ["edited train/0.png"]),
    "renamed": (lambda f: (f / "3.png").rename(f / "7.png"),
                ["renamed train/3.png to train/7.png"]),
    "relabeled": (labeled_anew, ["edited train/0.png"]),
    "touched": (lambda f: os.utime(f / "0.png", (1, 1)), []),
}  # fmt: skip
TAGS = "0,red hair blue eyes\n" + "".join(f"{i},aqua hair blue eyes\n" for i in (1, 2, 3, 7, 9))


@pytest.mark.fault(33)
@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_the_data_is_named(tmp_path, name):
    change, want = CHANGES[name]
    folder = tmp_path / "x"
    path = write(folder, {**faces(4), "tags.csv": TAGS})
    first = built(tmp_path, path)
    (tmp_path / "data.json").write_text(json.dumps(diff.contents(first)))
    change(folder)
    second = built(tmp_path, path)
    assert diff.differences(diff.contents(first), diff.contents(second)) == want
    assert (first.manifest["sha256"] == second.manifest["sha256"]) == (not want)
    for line in want:
        assert line in diff.since(tmp_path / "data.json", second)


@pytest.mark.fault(33)
def test_a_record_of_the_data_that_is_cut_or_gone_is_told(tmp_path):
    made = built(tmp_path, write(tmp_path / "x", faces(2)))
    path = tmp_path / "data.json"
    path.write_text(json.dumps(diff.contents(made)))
    assert "same images" in diff.since(path, made)
    text = path.read_bytes()
    for bad in (text[:-1], text[: len(text) // 2], b"", b"[1]", b"7", b"\xff"):
        path.write_bytes(bad)
        assert "data.json is missing or damaged" in diff.since(path, made)
    path.unlink()
    assert "data.json is missing or damaged" in diff.since(path, made)


@pytest.mark.fault(33)
def test_many_changes_are_told_in_one_line(tmp_path):
    first = built(tmp_path, write(tmp_path / "x", faces(20)))
    (tmp_path / "data.json").write_text(json.dumps(diff.contents(first)))
    shutil.rmtree(tmp_path / "x")
    second = built(tmp_path, write(tmp_path / "x", faces(20, 100)))
    told = diff.since(tmp_path / "data.json", second)
    assert "\n" not in told
    assert "and 32 more" in told
    assert len(told) < 300


@pytest.mark.fault(33)
def test_a_byte_of_a_pack_that_changed_is_seen(tmp_path):
    """A pack's own key would stay the same: its files are hashed before training."""
    path = write(tmp_path / "x", faces(3))
    made, _ = dataset.import_to(Images(path, size=16, test=0), tmp_path / "pack", workers=1)
    for name in made.manifest["files"]:
        data = bytearray((made.path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (made.path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"damaged: {name}"):
            dataset.verify(made)
        data[len(data) // 2] ^= 1
        (made.path / name).write_bytes(data)
    dataset.verify(made)


@pytest.mark.fault(34)
def test_one_image_is_a_set(tmp_path):
    path = write(tmp_path / "x", faces(1))
    for share in (0, 0.1, 0.9):
        try:
            assert len(built(tmp_path, path, test=share).images) == 1
        except UserError as error:
            assert "none of 1 images" in str(error)


@pytest.mark.fault(34)
def test_a_set_of_one_picture_is_counted_as_that(tmp_path):
    path = write(tmp_path / "x", {f"{i}.png": GOOD for i in range(10)})
    report = check.summary(path, scanned(tmp_path, path, test=0))
    assert report["duplicate_share"] == 0.9
    assert report["counts"]["duplicate"]["count"] == 9
    assert built(tmp_path, path, test=0).manifest["counts"] == {"duplicate": 9}


TABLE = """0,aqua hair red eyes
1,aqua hair blue eyes
1,blue hair blue eyes
2,red hair
3,no such color
8,red hair red eyes
"""


@pytest.mark.fault(34)
def test_labels_that_fail_are_counted_by_kind(tmp_path):
    """Conflicting, half, unreadable (so open as well), missing (4 and 5) and of no image (8)."""
    path = write(tmp_path / "x", {**faces(6), "tags.csv": TABLE})
    report = check.summary(path, scanned(tmp_path, path, test=0))
    counts = {code: kind["count"] for code, kind in report["counts"].items()}
    assert counts == {
        "conflict": 1,
        "unlabeled": 2,
        "unknown tag": 1,
        "no label": 2,
        "no image": 1,
    }
    assert built(tmp_path, path).manifest["counts"] == counts
    # The class table says which classes are there, and so which are not.
    assert report["classes"]["hair"] == {"aqua": 2, "red": 1, "unknown": 3}
    assert "green" not in report["classes"]["hair"]
    assert report["classes"]["pairs"] == {"aqua hair red eyes": 1, "aqua hair blue eyes": 1}
    assert "2 of 132 occur" in as_text(check.tables(report))


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ({}, "holds no images"),
        ({"notes.txt": "x"}, "holds no images"),
        ({"tags.csv": TABLE}, "holds no images"),
        ({**faces(2), "tags.csv": ""}, "tags.csv"),
        ({**faces(2), "tags.csv": "id;color\n"}, "tags.csv is for other images"),
        ({**faces(2), "tags.csv": "what is this\n"}, "tags.csv is not a label file"),
    ],
)
def test_nothing_to_learn_from_is_refused(tmp_path, contents, told):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=told):
        built(tmp_path, write(tmp_path / "x", contents))


@pytest.mark.fault(21, 34)
def test_tables_with_a_byte_order_mark(tmp_path):
    """As spreadsheets write them."""
    tags = "\ufeff0,aqua hair red eyes\r\n1,red hair red eyes\r\n"
    boxes = "\ufefffile,x,y,w,h\r\n0.png,8,8,32,32\r\n1.png,8,8,32,32\r\n"
    contents = {**faces(2), "tags.csv": tags, "boxes.csv": boxes}
    found = scanned(tmp_path, write(tmp_path / "x", contents), test=0)
    assert found.findings == []
    assert all(item.box == (8, 8, 32, 32) for item in found.items)


@pytest.mark.long
@pytest.mark.fault(35)
def test_a_decoder_that_dies_ends_the_import_with_the_file_named(tmp_path, monkeypatch):
    assert ingest.CHUNK_SECONDS + ingest.FILE_SECONDS < 60
    monkeypatch.setattr(ingest, "CHUNK_SECONDS", 8.0)
    monkeypatch.setattr(ingest, "FILE_SECONDS", 6.0)
    contents = {**faces(3), "2-hangs.png": files.noise_file(9), "3-dies.png": files.noise_file(8)}
    source = Deadly(write(tmp_path / "x", contents), size=16)
    with pytest.raises(UserError) as error:
        dataset.build(source, tmp_path / "cache")
    for name in ("2-hangs.png: crashed (over 6 s)", "3-dies.png: crashed (the decoder died)"):
        assert name in str(error.value)
    assert os.listdir(tmp_path / "cache") == []


@pytest.mark.fault(35)
def test_workers_judge_as_this_process_does(tmp_path):
    contents = {**faces(4), "bad.png": b"bad", "cut.png": GOOD[:-500]}
    path = write(tmp_path / "x", contents)
    source = Images(path, size=16, policy="skip", test=0)
    packs = [dataset.build(source, tmp_path / str(n), workers=n) for n in (1, 2)]
    assert json.dumps(packs[0].manifest) == json.dumps(packs[1].manifest)
