"""Folders, zips and tars as lists of members, read in place: nothing is ever unpacked to disk."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from anigan_jax.data.decode import MAX_BYTES, Finding
from anigan_jax.data.kinds import CONVERT, joined, kind_of
from anigan_jax.data.kinds import SUFFIXES as IMAGES
from anigan_jax.data.label_text import NAMES, encoding
from anigan_jax.errors import UserError

MAX_ENTRIES = 2_000_000
UTF8 = 0x800  # the flag of an entry whose name is marked as UTF-8
# Bytes that tell a file's kind.
HEAD = 32
# A member is held in memory one at a time, so that only MAX_BYTES bounds it: flat drawings
# pack a thousandfold. A whole archive is bounded for the time that it takes.
MAX_RATIO = 100
TOTAL_FREE = 2**36
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# How compressed tars begin, and what reads them, whatever their ending.
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class Member(NamedTuple):
    """A file of a collection: its name with '/', its size in bytes, and its facts in a folder."""

    name: str
    size: int
    facts: tuple[int, ...] = ()


class Bomb(Exception):
    """An archive that unpacks to more than its limits allow."""


def is_archive(path: Path) -> bool:
    """Whether a name is one of an archive, or a file without an image's ending begins as one."""
    if path.suffix.lower() in IMAGES:
        return False
    head = _head(path)
    begins = head.startswith(b"PK\3\4") or _is_tar(head)
    return begins or path.name.lower().endswith(SUFFIXES)


def _head(path: Path) -> bytes:
    """The first bytes of a file, as many as a tar needs to be known; b'' where it is none."""
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return b""


def _is_tar(head: bytes) -> bool:
    """Whether a file begins as a tar, packed or not."""
    return head.startswith(tuple(PACKED)) or head[257:262] == b"ustar"


def _is_zip(path: Path) -> bool:
    head = _head(path)
    named = path.suffix.lower() == ".zip" and not _is_tar(head)
    return named or head.startswith((b"PK\3\4", b"PK\5\6"))


def members(path: Path, within: str = "") -> tuple[list[Member], list[Finding]]:
    """Lists a folder or an archive, in bytes order of the names.

    Args:
      within: links of a folder are followed where they lead into it or into this folder.

    Returns:
      The members that may be read, and a finding for every one that may not.

    Raises:
      UserError: the archive as a whole cannot be trusted or read.
    """
    if path.is_dir():
        found, findings = _folder(path, within)
    elif _is_zip(path):
        found, findings = _guarded(path, _zip_entries(path))
    else:
        found, findings = _guarded(path, _tar_entries(path))
    return sorted(found, key=lambda m: in_bytes(m.name)), findings


def facts_of(info: os.stat_result) -> tuple[int, ...]:
    """What changes where a file changes: times of change first, in nanoseconds."""
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_dev)


def in_bytes(name: str) -> bytes:
    """A name's bytes, for an order that no locale changes."""
    return name.encode("utf-8", "surrogateescape")


def read(path: Path, names, most: int = MAX_BYTES + 1) -> Iterator[tuple[str, bytes | Finding]]:
    """The bytes of members, one at a time and at most so many; a tar's in its own order."""
    if path.is_dir():
        for name in names:
            yield name, _read_file(path / name, name, most)
    elif _is_zip(path):
        with _opened(path) as archive:
            for name in names:
                yield name, _read_entry(archive, name, most)
    else:
        wanted = set(names)
        for entry, file in _tar(path):
            name = _plain(entry.name)
            if name in wanted and entry.isreg():
                # A later entry of the same name was refused by `members`.
                wanted.remove(name)
                yield name, file.read(min(entry.size, most))


def heads(path: Path, names) -> Iterator[tuple[str, bytes | None]]:
    """The first bytes of members, which tell what they are; None where one cannot be read."""
    for name, data in read(path, names, HEAD):
        yield name, None if isinstance(data, Finding) else data


def _plain(name: str) -> str:
    # `tar cf x.tar .` writes every name with a leading './'.
    return name.removeprefix("./")


def _folder(root: Path, within: str) -> tuple[list[Member], list[Finding]]:
    found, findings, links = [], [], {}
    allowed = [root.resolve(), *([Path(within).expanduser().resolve()] if within else [])]
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        prefix = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            findings.append(Finding(prefix or ".", "unreadable", error.strerror or "not listed"))
            continue
        for entry in entries:
            name = prefix + entry.name
            try:
                link = Path(entry.path).resolve(strict=True) if entry.is_symlink() else None
                if link and not any(map(link.is_relative_to, allowed)):
                    what = "a linked folder" if entry.is_dir() else "it points outside the folder"
                    hint = "--follow-links ROOT allows links into ROOT"
                    findings.append(Finding(name, "link", f"{what}; {hint}"))
                elif entry.is_dir():
                    if link is None:
                        waiting.append(Path(entry.path))
                    elif not within:
                        findings.append(Finding(name, "link", "a linked folder"))
                    elif link not in seen and not link.is_relative_to(allowed[0]):
                        # Each once, and not what lies here anyway: links may lead in a circle.
                        seen.add(link)
                        waiting.append(Path(entry.path))
                elif entry.is_file():
                    info = entry.stat()
                    found.append(Member(name, info.st_size, facts_of(info)))
                    links |= {str(link): name} if link else {}
                else:
                    findings.append(Finding(name, "special"))
            except (OSError, RuntimeError):
                findings.append(Finding(name, "link", "it points nowhere"))
    # A cache has its files under names without an ending, and links to them with one.
    real = str(allowed[0])
    hidden = {m.name for m in found if not PurePosixPath(m.name).suffix} if links else set()
    hidden = {name for name in hidden if os.path.join(real, name) in links}  # noqa: PTH118
    return [m for m in found if m.name not in hidden], findings


def _read_file(path: Path, name: str, most: int) -> bytes | Finding:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        return Finding(name, "unreadable", error.strerror or str(error))


class _Entry(NamedTuple):
    name: str
    size: int
    kind: str  # 'file', or a code of decode.REFUSED


def _zip_entries(path: Path) -> Iterator[_Entry]:
    try:
        count = _zip_count(path)
        if count > MAX_ENTRIES:
            raise UserError(f"{path} holds {count:,} entries; at most {MAX_ENTRIES:,} are read")
        with _opened(path) as archive:
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
                    name = info.orig_filename if "\0" in info.orig_filename else info.filename
                    name = name.replace("\\", "/")
                    if not name.endswith("/") or kind != "file":
                        yield _Entry(name, info.file_size, kind)
    except UserError:
        raise
    except Exception as error:
        # zipfile raises BadZipFile, struct.error, OverflowError, ... on hostile files.
        raise UserError(_unreadable(path, "zip", error)) from None


def _opened(path: Path) -> zipfile.ZipFile:
    """A zip, its names in UTF-8 or as Windows wrote them, where backslashes divide folders."""
    try:
        archive = zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        archive = zipfile.ZipFile(path)
        unmarked = (info for info in archive.infolist() if not info.flag_bits & UTF8)
        names = [i.orig_filename.encode("cp437", "replace") for i in unmarked]
        with contextlib.suppress(UserError, UnicodeDecodeError):
            archive = zipfile.ZipFile(path, metadata_encoding=encoding(names, (), NAMES))
    # Of several by one name the first, as they are listed.
    for info in reversed(archive.infolist()):
        archive.NameToInfo[info.filename.replace("\\", "/")] = info
    return archive


def _unreadable(path: Path, what: str, error: object) -> str:
    kind = kind_of(_head(path))
    why = str(error) or type(error).__name__
    if kind and kind not in ("ZIP archive", "GZIP archive", "XZ archive", "BZIP2 archive"):
        why = f"it is {kind}{CONVERT.get(kind, '')}"
    return f"{path} is not a readable {what}: {why}{joined(path)}"


def _zip_count(path: Path) -> int:
    """Entries of a zip, declared or there, counted before zipfile allocates for them.

    zipfile reads to the end of the directory, whatever number is declared.
    """
    with path.open("rb") as file:
        # A comment of 65,535 bytes, and what it is of.
        file.seek(max(0, path.stat().st_size - 65557))
        start, tail = file.tell(), file.read()
        at = -1 if path.with_suffix(".z01").exists() else tail.rfind(b"PK\5\6")
        if at < 0 or at + 22 > len(tail):
            raise UserError(_unreadable(path, "zip", "it has no directory (cut off?)"))
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


def _read_entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes | Finding:
    try:
        with archive.open(name) as file:
            data = file.read(most)
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
        yield _Entry(_plain(entry.name), entry.size, kind)


def _tar(path: Path) -> Iterator[tuple[tarfile.TarInfo, _Limited]]:
    """Entries of a tar in order, each with the stream at its data."""
    head = _head(path)
    opener = next((made for magic, made in PACKED.items() if head.startswith(magic)), open)
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
        raise UserError(_unreadable(path, "tar", error)) from None


class _Limited:
    """A decompressed stream that stops a bomb, whatever tarfile asks of it."""

    def __init__(self, raw, packed: int):
        self.raw, self.seen = raw, 0
        self.most = max(TOTAL_FREE, packed * MAX_RATIO)

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
    most = max(TOTAL_FREE, path.stat().st_size * MAX_RATIO)
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
        if total > most:
            raise UserError(f"{path} is refused: it unpacks to over {MAX_RATIO} times its size")
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
        return "path", "it leads out of the folder"
    if "\\" in name or any(ord(c) < 32 for c in name) or "" in parts:
        return "path", "it holds a backslash, a control character or an empty part"
    if len(name) > 4096 or any(len(in_bytes(part)) > 255 for part in parts):
        return "path", "it is too long"
    if entry.size > MAX_BYTES:
        return "bomb", f"{entry.size:,} bytes"
    return "", ""
