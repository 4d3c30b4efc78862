"""Hostile bytes: the loader and the archive reader refuse or take, and never anything else.

FUZZ_SECONDS=300 runs each target that long (hypothesis keeps what it finds in .hypothesis);
what was found once is kept in tests/corpus and tried always.
"""

import contextlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anigan_jax.data import archives as archive
from anigan_jax.data import boxes, label_files, label_text, labels, matching, parquet, tables
from anigan_jax.data.decode import NOTED, REFUSED, Crop, Decoded, Finding, Refusal, decode
from anigan_jax.errors import UserError

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
CORPUS = sorted((Path(__file__).parent / "corpus").glob("*"))
# How label files of each layout begin.
HEADS = (
    *("", "0,aqua hair blue eyes", "id,rating,tags", "0;blue hair", "0,touhou:3\tred hair:9"),
    *('{"file_name": "0.png", "text": "x"}', '{"labels": [["0.png", 1]]}', '["'),
    *("1\nBlack_Hair Smiling\n0.png 1 -1", "0," + ",".join("01" + "0" * 21), '"0"\t"a'),
)
IMAGES = ["a/0.png", "1.png", "é 2.JPG"]
# 1,000 examples take between 1 and 10 seconds.
LIMITS = settings(
    max_examples=int(SECONDS * 300) or 150,
    deadline=None,
    derandomize=not SECONDS,
    suppress_health_check=list(HealthCheck),
    database=None,
)


def seeds() -> list[bytes]:
    kinds = [
        files.noise_file(1, kind, 24, **options)
        for kind, options in (
            ("PNG", {}),
            ("JPEG", {"quality": 90}),
            ("JPEG", {"progressive": True, "exif": files.exif(6)}),
            ("WEBP", {}),
            ("WEBP", {"lossless": True}),
            ("BMP", {}),
        )
    ]
    extra = (files.swapped_profile(), files.exif(3).tobytes())
    kinds.append(files.picture(size=(24, 24), icc_profile=extra[0]))
    kinds.append(files.picture((1, 2, 3, 4), (24, 24), "RGBA", exif=extra[1]))
    kinds.append(files.encode(files.noise(2, 24).convert("P")))
    kinds.append(files.encode(files.noise(2, 24).convert("CMYK"), "JPEG"))
    return kinds + [data for data, _ in files.BAD.values() if 0 < len(data) < 20_000]


def archives() -> list[bytes]:
    found = []
    for mode in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", mode) as z:
            for name in ("a.png", "b/c.png", "d/"):
                z.writestr(name, b"" if name.endswith("/") else files.picture())
        found.append(buffer.getvalue())
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode=mode, format=form) as t:
                for name in ("a.png", "b/c.png", "x" * 120 + ".png"):
                    info = tarfile.TarInfo(name)
                    info.size = len(files.picture())
                    t.addfile(info, io.BytesIO(files.picture()))
            found.append(buffer.getvalue())
    return found


WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01")
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2")


@st.composite
def damaged(draw, whole: list[bytes]) -> bytes:
    """A valid file with bytes changed, cut, doubled or replaced by those of another."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(("set", "word", "cut", "double", "splice", "insert")))
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 64))
        if kind == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "word":
            data[at : at + 4] = draw(st.sampled_from(WORDS))
        elif kind == "cut":
            del data[at : at + length if draw(st.booleans()) else None]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "splice":
            other = draw(st.sampled_from(whole))
            data[at : at + length] = other[at : at + length]
        else:
            data[at:at] = draw(st.binary(max_size=16))
    return bytes(data)


def judge_image(data: bytes) -> None:
    try:
        result = decode(data, Crop(16), ".png")
    except Refusal as refusal:
        assert refusal.code in REFUSED
        return
    assert isinstance(result, Decoded)
    assert result.pixels.shape == (16, 16, 3)
    assert result.pixels.dtype == np.uint8
    assert {code for code, _ in result.notes} <= set(NOTED)


@pytest.mark.long
@pytest.mark.fault(14)
@LIMITS
@given(st.one_of(damaged(seeds()), st.binary(max_size=200)))
def test_the_loader(data):
    judge_image(data)


@pytest.mark.fault(18)
@LIMITS
@given(data=damaged(archives()), suffix=st.sampled_from(SUFFIXES))
def test_the_archive_reader(tmp_path_factory, data, suffix):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    judge_archive(folder / f"a{suffix}", data)
    assert [p.name for p in folder.iterdir()] == []


def judge_archive(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        members, findings = archive.members(path)
        assert all(f.code in REFUSED for f in findings)
        for member in members:
            assert not member.name.startswith("/")
            assert ".." not in member.name.split("/")
        for _, content in archive.read(path, [m.name for m in members]):
            assert isinstance(content, bytes | Finding)
    except UserError:
        pass
    finally:
        path.unlink()


@pytest.mark.long
@LIMITS
@given(st.sampled_from(HEADS), st.text(max_size=300))
def test_the_label_reader(head, text):
    try:
        found = label_files.read(f"{head}\n{text}\n{text}", "t")
    except UserError:
        return
    for rule in ("max-count", "unique", "last"):
        table = labels.table(found.rows, "t", rule)
        for label in table.labels.values():
            assert label.items() <= {(a.name, c) for a in table.attributes for c in a.classes}
    labels.table(found.rows, "t", "max-count", ("tags",))
    matching.match([text, "0.png"], list(found.rows.names()))


def label_tables() -> list[bytes]:
    """A whole label file of each layout, in the encodings of spreadsheets too."""
    rows = "\n".join(f"{i},aqua hair blue eyes" for i in range(4))
    made = [f"{head}\n{rows}" for head in HEADS] + [
        json.dumps([{"file_name": "0.png", "text": "a hat", "x": [[1]]}, {"id": 1, "tags": "a"}]),
        json.dumps({"0.png": ["blue_hair"], "1.png": {"hair": "blue"}, "2.png": 3}),
        "\n".join(json.dumps({"file_name": f"{i}.png", "tags": ["a_b", i]}) for i in range(4)),
        "picture\thair\tscore\n0.png\tblue\t0.5\n1.png\tred\t0.25\n",
        "file,x,y,w,h\n0.png,1,2,3,4\n",
        "1\nimage_id x_1 y_1 width height\n0.png 1 2 3 4\n",
        json.dumps({"images": [{"id": 7, "file_name": "0.png"}],
                    "annotations": [{"image_id": 7, "caption": "a hat", "category_id": 1}],
                    "categories": [{"id": 1, "name": "cat"}]}),
        json.dumps({"file": {"0": "0.png", "1": "1.png"}, "text": {"0": "a hat", "1": None}}),
        "sep=;\nid;md5;tags\n8;\"=\"\"0\"\"\";\"['é', 'b']\"\n'9;1;nan\n",
        "# of me\n" + "".join(f"{i}: {text} hair\n" for i, text in enumerate(("blue", "red"))),
    ]  # fmt: skip
    codes = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")
    return [text.encode(code) for text in made for code in codes]


@LIMITS
@given(damaged(label_tables()))
def test_files_of_labels_and_of_boxes(tmp_path_factory, data):
    judge_table(tmp_path_factory.getbasetemp() / "t.csv", data)


def judge_table(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        boxes.read(path.parent, [], None, str(path))
    with contextlib.suppress(UserError):
        text = label_text.of_bytes(data, "t", IMAGES)
        found = label_files.read(text, "t", IMAGES)
        labels.table(found.rows, "t", "max-count", ("tags", "class"))
        matching.match(IMAGES, list(found.rows.names()))
    with contextlib.suppress(UserError):
        assert tables._of_sidecar(".json", label_text.decoded(data)) is not None


def parquet_files(folder: Path) -> list[bytes]:
    """Images with texts, tags and numbers beside them, as several writers store them."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": files.picture((i, 0, 0)), "path": f"{i}.png"} for i in range(3)]
    table = pa.table({"image": images, "text": ["blue hair", None, "a hat"],
                      "tags": [["a", "b"], [], ["c"]], "label": [0, 1, 2]})  # fmt: skip
    plain = pa.table(
        {"img": [files.picture()] * 3, "text": pa.array(["x"] * 3).dictionary_encode()}
    )
    made = []
    for number, (what, options) in enumerate((
        (table, {}), (plain, {}), (table, {"compression": "gzip", "row_group_size": 1}),
        (table, {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"}),
    )):  # fmt: skip
        parquet.write_table(what, folder / f"{number}.parquet", **options)
        made.append((folder / f"{number}.parquet").read_bytes())
    return made


@settings(LIMITS, max_examples=int(SECONDS * 30) or 60)
@given(data=st.data())
def test_parquet(whole_parquet, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "a.parquet"
    path.write_bytes(data.draw(damaged(whole_parquet)))
    judge_parquet(path)


@pytest.fixture(scope="module")
def whole_parquet(tmp_path_factory):
    yield parquet_files(tmp_path_factory.mktemp("parquet"))
    parquet.READER.end()


def judge_parquet(path: Path) -> None:
    with contextlib.suppress(UserError):
        store, members, rows = parquet.opened(path)
        names = [member.name for member in members]
        assert set(rows.names()) <= set(names)
        got = dict(store.read(names[:1000]))
        assert list(got) == names[:1000]
        assert all(isinstance(content, bytes | Finding) for content in got.values())


@pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.name)
def test_what_was_found_before(path, tmp_path):
    data = path.read_bytes()
    judge_image(data)
    for suffix in (".zip", ".tar", ".tar.gz"):
        judge_archive(tmp_path / f"a{suffix}", data)
    judge_table(tmp_path / "t.csv", data)
