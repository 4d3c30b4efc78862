"""A disk that forgets: replays recorded system calls, and tells what a crash leaves of them.

What is written is safe once its file is synced; a name is safe once its folder is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faults.saves import script
from tiny import process_env

# A question mark: some processors have only the later one of two.
CALLS = (
    "?open,openat,?creat,write,pwrite64,writev,pwritev,ftruncate,truncate,fsync,fdatasync,close,"
    "?rename,?renameat,renameat2,?mkdir,mkdirat,?unlink,unlinkat,?rmdir,?link,linkat,?symlink,"
    "symlinkat,dup,?dup2,dup3,fcntl,sendfile,copy_file_range,mmap"
)
# Nothing here does these; they would change a file behind the replay's back.
FOREIGN = ("pwritev", "sendfile", "copy_file_range")
FOREIGN_NAMES = ("truncate", "link", "linkat", "symlink", "symlinkat")
LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)")


@dataclass
class File:
    data: bytearray = field(default_factory=bytearray)
    safe: bytes = b""


@dataclass
class Folder:
    names: dict = field(default_factory=dict)
    safe: dict = field(default_factory=dict)


def can_record() -> bool:
    """Whether strace is here and may look at processes."""
    if not shutil.which("strace"):
        return False
    return (
        subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode == 0
    )


needs_strace = pytest.mark.skipif(not can_record(), reason="strace is absent or not allowed")


def recorded(scenario: str, folder: Path) -> list[tuple[str, str, int]]:
    """The calls of a scenario of `saves` in folder/run, which begins as folder/before."""
    shutil.copytree(folder / "before", folder / "run")
    command = script("save", scenario, folder / "run")
    return record(command, folder / "log", env=process_env())


def record(command: list[str], log: Path, **options) -> list[tuple[str, str, int]]:
    """Runs a command; its system calls on files in the order in which they ended.

    Returns:
      (name, arguments as strace prints them, result) of each that succeeded.
    """
    strace = ["strace", "-f", "-qq", "-xx", "-s", "100000000", "-o", str(log)]
    subprocess.run([*strace, "-e", f"trace={CALLS}", *command], check=True, **options)
    calls, begun = [], {}
    for line in log.read_text().splitlines():
        found = LINE.fullmatch(line)
        if not found:
            continue
        thread, name, kind, rest = found.groups()
        if kind != "(":
            rest = begun.pop(thread) + rest
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>")
            continue
        arguments, _, result = rest.rpartition(" = ")
        result = result.split(" ")[0]
        if arguments and not result.startswith(("-", "?")):
            calls.append((name, arguments.rstrip().removesuffix(")"), int(result, 0)))
    return calls


def _strings(text: str) -> list[bytes]:
    found = re.findall(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?', text)
    assert not any(cut for _, cut in found), "strace cut a string short"
    return [bytes.fromhex(s.replace("\\x", "")) for s, _ in found]


class Disk:
    """Holds a folder as it is now, all of it safe, and what is done to it."""

    def __init__(self, root: Path, named: Path | None = None):
        """Args: named: how the calls name the folder, where that is not `root`."""
        self.path, self.root = named or root, self._read(root)
        self.open: dict[int, list] = {}

    def _read(self, path: Path) -> File | Folder:
        if path.is_file():
            return File(bytearray(path.read_bytes()), path.read_bytes())
        names = {child.name: self._read(child) for child in path.iterdir()}
        return Folder(names, dict(names))

    def _place(self, text: str) -> tuple[Folder, str] | None:
        """The folder and name of a call's first path; None outside of the root."""
        where = text.split(",")[0]
        # Python 3.13 walks a folder as "folder/".
        path = _strings(text)[0].decode().rstrip("/")
        if not path.startswith("/"):
            if not where.isdigit() or not (held := self.open.get(int(where))):
                return None
            return (held[0], path) if isinstance(held[0], Folder) else None
        if path == str(self.path):
            return Folder({"": self.root}), ""
        if not path.startswith(f"{self.path}/"):
            return None
        folder = self.root
        *parents, name = path[len(str(self.path)) + 1 :].split("/")
        for parent in parents:
            folder = folder.names[parent]
        return folder, name

    def do(self, name: str, text: str, result: int) -> bool:
        """Does a call; whether it changed anything, or made it safe."""
        first = text.split(",")[0].strip("(")
        held = self.open.get(int(first)) if first.isdigit() else None
        if name in ("open", "openat", "creat"):
            return self._open(text, result)
        if name == "close":
            self.open.pop(int(first), None)
            return False
        if name in ("dup", "dup2", "dup3") or (name == "fcntl" and "F_DUPFD" in text):
            if held:
                self.open[result] = held
            return False
        if name in ("write", "pwrite64", "writev"):
            return bool(held) and self._write(name, text, result, held)
        if name == "ftruncate":
            if held:
                size = int(text.split(",")[1])
                held[0].data[:] = held[0].data[:size].ljust(size, b"\0")
            return bool(held)
        if name in ("fsync", "fdatasync"):
            if held:
                node = held[0]
                node.safe = dict(node.names) if isinstance(node, Folder) else bytes(node.data)
            return bool(held)
        if name == "mmap":
            assert not (held and "PROT_WRITE" in text and "MAP_SHARED" in text)
            return False
        if name in FOREIGN:
            assert not any(int(n) in self.open for n in re.findall(r"\b\d+\b", text)), name
        return name not in ("fcntl", *FOREIGN) and self._rename_or_delete(name, text)

    def _open(self, text: str, result: int) -> bool:
        self.open.pop(result, None)
        place = self._place(text)
        if place is None:
            return False
        folder, name = place
        new = name not in folder.names
        if new:
            folder.names[name] = File()
        node = folder.names[name]
        self.open[result] = [node, 0]
        if "O_TRUNC" in text and node.data:
            node.data.clear()
            return True
        return new

    def _write(self, name: str, text: str, result: int, held: list) -> bool:
        data = b"".join(_strings(text))[:result]
        assert len(data) == result
        at = int(text.rsplit(",", 1)[1]) if name == "pwrite64" else held[1]
        node = held[0]
        node.data.extend(b"\0" * (at - len(node.data)))
        node.data[at : at + result] = data
        if name != "pwrite64":
            held[1] = at + result
        return True

    def _rename_or_delete(self, name: str, text: str) -> bool:
        place = self._place(text)
        if place is None:
            return False
        assert name not in FOREIGN_NAMES, f"{name} is not replayed"
        folder, child = place
        if name.startswith("mkdir"):
            folder.names[child] = Folder()
        elif name.startswith("rename"):
            other, target = self._place(text.split('",', 1)[1].strip())
            other.names[target] = folder.names.pop(child)
        else:
            del folder.names[child]
        return True

    def left(self, names: str, data: str) -> dict[str, bytes]:
        """What a crash leaves: path -> content; of folders, None.

        Args:
          names, data: 'now' or 'safe', which names and which content reached the disk.
        """
        found: dict[str, bytes | None] = {}

        def walk(folder: Folder, prefix: str) -> None:
            for name, node in (folder.names if names == "now" else folder.safe).items():
                path = f"{prefix}{name}"
                if isinstance(node, Folder):
                    found[path] = None
                    walk(node, f"{path}/")
                else:
                    found[path] = bytes(node.data) if data == "now" else node.safe

        walk(self.root, "")
        return found


def put(left: dict[str, bytes | None], folder: Path) -> Path:
    """Makes real what a crash left."""
    folder.mkdir()
    for name, content in left.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
    return folder


def crashes(before: Path, at: Path, calls: list) -> Iterator[tuple[str, str, dict]]:
    """(call, which crash, what it leaves) after every call, and inside every write.

    'kill': all was done. 'power': only what was synced. 'names': a file system that writes
    names before content.

    Args:
      before: what `at`, the folder that the calls name, held at first.
    """
    disk = Disk(before, at)
    for name, text, result in calls:
        if name in ("write", "writev") and result > 1:
            first = text.split(",")[0]
            held = disk.open.get(int(first))
            if held:
                half = list(held)
                whole = bytes(held[0].data)
                disk._write(name, text, result, half)
                del held[0].data[half[1] - result // 2 :]
                yield name, "kill", disk.left("now", "now")
                held[0].data[:] = whole
        if disk.do(name, text, result):
            yield name, "kill", disk.left("now", "now")
            yield name, "power", disk.left("safe", "safe")
            yield name, "names", disk.left("now", "safe")
