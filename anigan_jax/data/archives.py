"""Folders, zips and tars as lists of members, read in place: nothing is ever unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anigan_jax.data.decode import MAX_BYTES, Finding
from anigan_jax.errors import UserError

MAX_ENTRIES = 2_000_000
MAX_TOTAL = 2**40
MAX_RATIO = 100
# Small members may pack well without harm.
RATIO_FREE = 2**20
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Member(NamedTuple):
    """A file of a collection: its name with '/', and its size in bytes."""

    name: str
    size: int


class Bomb(Exception):
    """An archive that unpacks to more than its limits allow."""


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def members(path: Path) -> tuple[list[Member], list[Finding]]:
    """Lists a folder or an archive, in bytes order of the names.

    Returns:
      The members that may be read, and a finding for every one that may not.

    Raises:
      UserError: the archive as a whole cannot be trusted or read.
    """
    if path.is_dir():
        found, findings = _folder(path)
    elif path.suffix.lower() == ".zip":
        found, findings = _guarded(path, _zip_entries(path))
    else:
        found, findings = _guarded(path, _tar_entries(path))
    return sorted(found, key=lambda m: in_bytes(m.name)), findings


def in_bytes(name: str) -> bytes:
    """A name's bytes, for an order that no locale changes."""
    return name.encode("utf-8", "surrogateescape")


def read(path: Path, names) -> Iterator[tuple[str, bytes | Finding]]:
    """The bytes of members, one at a time; a tar's in its own order."""
    if path.is_dir():
        for name in names:
            yield name, _read_file(path / name, name)
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in names:
                yield name, _read_entry(archive, name)
    else:
        wanted = set(names)
        for entry, file in _tar(path):
            name = _plain(entry.name)
            if name in wanted and entry.isreg():
                # A later entry of the same name was refused by `members`.
                wanted.remove(name)
                yield name, file.read(entry.size)


def _plain(name: str) -> str:
    # `tar cf x.tar .` writes every name with a leading './'.
    return name.removeprefix("./")


def _folder(root: Path) -> tuple[list[Member], list[Finding]]:
    found, findings = [], []
    real_root = root.resolve()

    def failed(error: OSError) -> None:
        where = os.path.relpath(error.filename, root)
        findings.append(Finding(where, "unreadable", error.strerror or "cannot be listed"))

    for folder, folders, files in os.walk(root, onerror=failed):
        for name in list(folders):
            if Path(folder, name).is_symlink():
                where = Path(folder, name).relative_to(root).as_posix()
                findings.append(Finding(where, "link", "a linked folder"))
        for name in files:
            path = Path(folder, name)
            where = path.relative_to(root).as_posix()
            try:
                inside = not path.is_symlink() or path.resolve().is_relative_to(real_root)
                info = path.stat()
            except (OSError, RuntimeError):
                findings.append(Finding(where, "link", "it points nowhere"))
                continue
            if not inside:
                findings.append(Finding(where, "link", "it points out of the folder"))
            elif not stat.S_ISREG(info.st_mode):
                findings.append(Finding(where, "special"))
            else:
                found.append(Member(where, info.st_size))
    return found, findings


def _read_file(path: Path, name: str) -> bytes | Finding:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        return Finding(name, "unreadable", error.strerror or str(error))


class _Entry(NamedTuple):
    name: str
    size: int
    packed: int
    kind: str  # 'file', or a code of decode.REFUSED


def _zip_entries(path: Path) -> Iterator[_Entry]:
    try:
        count = _zip_count(path)
        if count > MAX_ENTRIES:
            raise UserError(f"{path} holds {count:,} entries; at most {MAX_ENTRIES:,} are read")
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                mode = info.external_attr >> 16
                kind = "file"
                if info.flag_bits & 1:
                    kind = "encrypted"
                elif stat.S_ISLNK(mode):
                    kind = "link"
                elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    kind = "special"
                if not info.is_dir() or kind != "file":
                    # orig_filename keeps what ZipFile cleans: backslashes and NULs.
                    yield _Entry(info.orig_filename, info.file_size, info.compress_size, kind)
    except UserError:
        raise
    except Exception as error:
        # zipfile raises BadZipFile, struct.error, OverflowError, ... on hostile files.
        raise UserError(f"{path} is no readable zip: {error or type(error).__name__}") from None


def _zip_count(path: Path) -> int:
    """Entries of a zip, declared or there, counted before zipfile allocates for them.

    zipfile reads to the end of the directory, whatever number is declared.
    """
    with path.open("rb") as file:
        # A comment of 65,535 bytes, and what it is of.
        file.seek(max(0, path.stat().st_size - 65557))
        start, tail = file.tell(), file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + 22 > len(tail):
            raise UserError(f"{path} is no readable zip: it has no directory (cut off?)")
        end = start + at
        directories = [(end, *struct.unpack_from("<HI", tail, at + 10))]
        for wide in _wide_ends(file, end):
            file.seek(wide)
            record = file.read(56)
            if len(record) == 56 and record.startswith(b"PK\6\6"):
                directories.append((wide, *struct.unpack_from("<QQ", record, 32)))
        most = 0
        for place, declared, size in directories:
            file.seek(max(0, place - size))
            most = max(most, declared, _marks(file))
    return most


def _wide_ends(file, end: int) -> list[int]:
    """Where a 64-bit zip's record may be: just before its locator, or where that says.

    The one is what older versions of zipfile take, the other what newer ones do.
    """
    if end < 76:
        return []
    file.seek(end - 20)
    locator = file.read(20)
    said = struct.unpack_from("<Q", locator, 8)[0]
    return [end - 76, min(said, end)] if locator.startswith(b"PK\6\7") else []


def _marks(file) -> int:
    """How often an entry of a zip's directory seems to begin, from here to the end."""
    count, rest = 0, b""
    while block := file.read(2**24):
        count += (rest + block).count(b"PK\1\2")
        rest = block[-3:]
    return count


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes | Finding:
    try:
        with archive.open(name) as file:
            data = file.read(MAX_BYTES + 1)
    except (NotImplementedError, RuntimeError) as error:
        return Finding(name, "unreadable", f"in the archive: {error}")
    except Exception as error:
        # zipfile and its decompressors raise BadZipFile, zlib.error, UnicodeDecodeError, ...
        return Finding(name, "corrupt", f"in the archive: {error}")
    return data


def _tar_entries(path: Path) -> Iterator[_Entry]:
    for entry, _ in _tar(path):
        kind = "file"
        if entry.issym() or entry.islnk():
            kind = "link"
        elif entry.isdir():
            continue
        elif not entry.isreg():
            kind = "special"
        yield _Entry(_plain(entry.name), entry.size, entry.size, kind)


def _tar(path: Path) -> Iterator[tuple[tarfile.TarInfo, _Limited]]:
    """Entries of a tar in order, each with the stream at its data."""
    openers = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(path.suffix.lower(), open)
    try:
        with opener(path, "rb") as raw:
            stream = _Limited(raw, path.stat().st_size)
            with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
                for entry in archive:
                    data = archive.extractfile(entry) if entry.isreg() else None
                    yield entry, data
                    # A stream's entries pile up in memory otherwise.
                    archive.members = []
    except Bomb as error:
        raise UserError(f"{path} is refused: {error}") from None
    except Exception as error:
        # tarfile and its decompressors raise TarError, zlib.error, EOFError, ValueError, ...
        raise UserError(f"{path} is no readable tar: {error}") from None


class _Limited:
    """A decompressed stream that stops a bomb, whatever tarfile asks of it."""

    def __init__(self, raw, packed: int):
        self.raw, self.seen = raw, 0
        self.most = max(RATIO_FREE, packed * MAX_RATIO)

    def read(self, size: int) -> bytes:
        if size > MAX_BYTES:
            raise Bomb(f"it asks for {size:,} bytes at once")
        data = self.raw.read(size)
        self.seen += len(data)
        if self.seen > self.most:
            raise Bomb(f"it unpacks to over {MAX_RATIO} times its size")
        return data


def _guarded(path: Path, entries) -> tuple[list[Member], list[Finding]]:
    """The rules for entries of any archive."""
    found, findings, total = [], [], 0
    exact, folded = set(), set()
    for number, entry in enumerate(entries, start=1):
        if number > MAX_ENTRIES:
            raise UserError(f"{path} holds over {MAX_ENTRIES:,} entries")
        name = entry.name
        code, detail = _fault(entry)
        if not code and name.casefold() in folded:
            same = name in exact
            code, detail = "repeated", "" if same else "differs from another by case only"
        exact.add(name)
        folded.add(name.casefold())
        if code:
            findings.append(Finding(name.replace("\0", "\\0"), code, detail))
            continue
        total += entry.size
        if total > MAX_TOTAL:
            raise UserError(f"{path} unpacks to over {MAX_TOTAL >> 40} TiB; it is refused")
        found.append(Member(name, entry.size))
    return found, findings


def _fault(entry: _Entry) -> tuple[str, str]:
    name = entry.name
    parts = name.split("/")
    if entry.kind != "file":
        return entry.kind, ""
    if not name or name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "path", "it is absolute"
    if ".." in parts:
        return "path", "it climbs out"
    if "\\" in name or any(ord(c) < 32 for c in name) or "" in parts:
        return "path", "it holds a backslash, a control character or an empty part"
    if len(name) > 4096 or any(len(in_bytes(part)) > 255 for part in parts):
        return "path", "it is too long"
    if entry.size > MAX_BYTES:
        return "bomb", f"{entry.size:,} bytes"
    if entry.size > RATIO_FREE and entry.size > MAX_RATIO * max(entry.packed, 1):
        return "bomb", f"{entry.packed:,} bytes unpack to {entry.size:,}"
    return "", ""
