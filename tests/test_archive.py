"""Hostile archives: every entry that must not be read is named, and nothing is written."""

import os
import stat
import struct
import tarfile
import zipfile

import files
import pytest
from archive_files import raw_name, special, tar_entry, tar_of, zip_of

from anigan_jax.data import archives
from anigan_jax.data.decode import Finding
from anigan_jax.errors import UserError

GOOD = files.picture()
# Of an entry, in these tests: 256 MiB take their time.
MAX_BYTES = 5_000_000


NAMES = {
    "../up.png": "path",
    "a/../../up.png": "path",
    "/etc/root.png": "path",
    "C:/windows.png": "path",
    "..\\up.png": "path",
    "a//b.png": "path",
    "line\nbreak.png": "path",
    "x" * 300 + ".png": "path",
}


def found(path) -> dict[str, str]:
    return {f.file: f.code for f in archives.members(path)[1]}


@pytest.mark.fault(18)
@pytest.mark.parametrize("name", NAMES)
def test_names_in_archives(tmp_path, name):
    entries = [(raw_name(name), GOOD), ("good.png", GOOD)]
    path = zip_of(tmp_path / "a.zip", entries)
    members, findings = archives.members(path)
    assert [m.name for m in members] == ["good.png"]
    assert [f.code for f in findings] == [NAMES[name]]
    path = tar_of(tmp_path / "a.tar", [tar_entry(name, data=GOOD), tar_entry("b.png", data=GOOD)])
    members, findings = archives.members(path)
    assert [m.name for m in members] == ["b.png"]
    assert [f.code for f in findings] == [NAMES[name]]


@pytest.mark.fault(18)
def test_zip_entries_that_are_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", MAX_BYTES)
    bomb = special("bomb.png", stat.S_IFREG)
    bomb.compress_type = zipfile.ZIP_DEFLATED
    path = zip_of(
        tmp_path / "a.zip",
        [
            (special("link.png", stat.S_IFLNK), b"/etc/passwd"),
            (special("pipe.png", stat.S_IFIFO), b""),
            (special("disk.png", stat.S_IFBLK), b""),
            (bomb, b"\0" * (MAX_BYTES + 1)),
            ("Same.png", GOOD),
            ("same.png", GOOD),
        ],
    )
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "a") as z:
        z.writestr("Same.png", GOOD)
    members, findings = archives.members(path)
    assert [m.name for m in members] == ["Same.png"]
    assert sorted((f.file, f.code) for f in findings) == [
        ("Same.png", "repeated"),
        ("bomb.png", "bomb"),
        ("disk.png", "special"),
        ("link.png", "link"),
        ("pipe.png", "special"),
        ("same.png", "repeated"),
    ]


def test_an_encrypted_entry(tmp_path):
    path = zip_of(tmp_path / "a.zip", [("secret.png", GOOD), ("good.png", GOOD)])
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    assert found(path) == {"secret.png": "encrypted"}


@pytest.mark.fault(18)
def test_tar_entries_that_are_no_files(tmp_path):
    kinds = {
        "soft.png": (tarfile.SYMTYPE, "link"),
        "hard.png": (tarfile.LNKTYPE, "link"),
        "pipe.png": (tarfile.FIFOTYPE, "special"),
        "disk.png": (tarfile.BLKTYPE, "special"),
        "tty.png": (tarfile.CHRTYPE, "special"),
    }
    entries = [tar_entry(name, kind, link="../../etc/passwd") for name, (kind, _) in kinds.items()]
    path = tar_of(tmp_path / "a.tar.gz", [*entries, tar_entry("./ok.png", data=GOOD)], "w:gz")
    members, findings = archives.members(path)
    assert [m.name for m in members] == ["ok.png"]
    assert {f.file: f.code for f in findings} == {n: code for n, (_, code) in kinds.items()}
    assert list(archives.read(path, ["ok.png"])) == [("ok.png", GOOD)]


@pytest.mark.fault(18)
@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_tar_that_unpacks_to_too_much(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(archives, "TOTAL_FREE", 2**20)
    zeros = [tar_entry(f"{i}.png", data=b"\0" * 2_000_000) for i in range(4)]
    path = tar_of(tmp_path / f"a.{suffix}", zeros, f"w:{suffix[4:]}")
    with pytest.raises(UserError, match="over 100 times"):
        archives.members(path)


@pytest.mark.fault(18)
def test_a_zip_that_unpacks_to_too_much(tmp_path, monkeypatch):
    """By its total: flat drawings pack a thousandfold, one by one."""
    path = zip_of(tmp_path / "a.zip", [(f"{i}.bmp", b"\0" * 2_000_000) for i in range(4)])
    assert len(archives.members(path)[0]) == 4
    monkeypatch.setattr(archives, "TOTAL_FREE", 2**20)
    with pytest.raises(UserError, match="over 100 times"):
        archives.members(path)


@pytest.mark.fault(18)
def test_a_tar_header_that_asks_for_all_memory(tmp_path):
    info = tarfile.TarInfo("big")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(UserError):
        archives.members(tmp_path / "a.tar")


@pytest.mark.fault(18)
def test_a_zip_that_claims_a_million_entries(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", [("a.png", GOOD)])
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\5\6")
    wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 9**9, 9**9, 46, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    path.write_bytes(data[:end] + wide + locator + data[end:])
    with pytest.raises(UserError, match="entries"):
        archives.members(path)


@pytest.mark.parametrize("cut", [4, 30, -10, -40])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_cut_archives(tmp_path, kind, cut):
    if kind == "zip":
        whole = zip_of(tmp_path / "whole.zip", [("a.png", GOOD)])
    else:
        mode = "w:gz" if kind == "tar.gz" else "w"
        whole = tar_of(tmp_path / f"whole.{kind}", [tar_entry("a.png", data=GOOD)], mode)
    data = whole.read_bytes()
    (tmp_path / f"cut.{kind}").write_bytes(data[:cut] if cut > 0 or kind != "tar" else data[:540])
    with pytest.raises(UserError, match="cut"):
        archives.members(tmp_path / f"cut.{kind}")


def test_a_damaged_entry_is_named_and_the_others_are_read(tmp_path):
    path = zip_of(tmp_path / "a.zip", [("a.png", files.noise_file(1)), ("b.png", GOOD)])
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    results = dict(archives.read(path, ["a.png", "b.png"]))
    assert isinstance(results["a.png"], Finding)
    assert results["a.png"].code == "corrupt"
    assert results["b.png"] == GOOD


@pytest.mark.fault(18)
def test_folders_with_links_and_pipes(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(GOOD)
    folder = tmp_path / "faces"
    folder.mkdir()
    (folder / "good.png").write_bytes(GOOD)
    (folder / "inside.png").symlink_to("good.png")
    (folder / "escape.png").symlink_to(outside / "secret.png")
    (folder / "nowhere.png").symlink_to("missing")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "tree").symlink_to(outside)
    os.mkfifo(folder / "pipe.png")
    members, findings = archives.members(folder)
    assert [m.name for m in members] == ["good.png", "inside.png"]
    assert {f.file: f.code for f in findings} == {
        "escape.png": "link",
        "nowhere.png": "link",
        "loop.png": "link",
        "tree": "link",
        "pipe.png": "special",
    }


@pytest.mark.fault(18)
def test_nothing_is_written(tmp_path):
    path = zip_of(tmp_path / "a.zip", [(raw_name("../up.png"), GOOD), ("a.png", GOOD)])
    before = sorted(tmp_path.parent.rglob("*"))
    members, _ = archives.members(path)
    list(archives.read(path, [m.name for m in members]))
    assert sorted(tmp_path.parent.rglob("*")) == before
