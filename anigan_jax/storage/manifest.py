"""Checkpoint folders as files: names, manifests, damage, deletion. No JAX here.

step_000000040/           a checkpoint, whole from the moment it has this name
  state/                  the arrays, as Orbax writes them
  manifest.json           schema, step, SHA-256 of every array and of every file of state/
  manifest.sha256         of manifest.json; `sha256sum -c` reads it
step_000000040.corrupt/   a damaged one, kept to look at
.tmp-40-PID/              a save that was killed
.old-40-PID/              what a save replaced: the checkpoint itself where that was killed
.gone-40-PID/             a deletion that was killed
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from anigan_jax.data import archives
from anigan_jax.errors import MachineError, UserError
from anigan_jax.intervals import NEVER, Every

SCHEMA = 2
MANIFEST, DIGEST = "manifest.json", "manifest.sha256"
FIELDS = {"schema": int, "step": int, "meta": dict, "leaves": dict, "files": dict}
LEAF = {"dtype": str, "shape": list, "sha256": str}
FILE = {"bytes": int, "sha256": str}


def hint(path: Path) -> str:
    """What to add to the news that a path is not a run: which run was meant, where one is near."""
    if path.is_file() and archives.is_archive(path):
        return "; it is an archive: unpack it and give the folder"
    around = (*path.parents, *path.absolute().parents) if path.exists() else ()
    # Not any run.json: a run's is beside its data's record.
    files = ("run.json", "data.json")
    run = next((top for top in around if all((top / name).exists() for name in files)), None)
    step = re.fullmatch(r"step_0*(\d+)", path.name)
    more = f" --checkpoint {step[1]}" if step else ""
    return f"; it is part of a run: give {run}{more}" if run else ""


def path_of(folder: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return folder / f"step_{step:09d}"


def steps(folder: Path) -> list[int]:
    """Committed steps, ascending."""
    # Twice: all that were listed may have been pruned before they were looked at, for a newer one.
    return _listed(folder) or _listed(folder)


def _listed(folder: Path) -> list[int]:
    names = (path.name for path in folder.glob("step_*") if path.is_dir())
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step_[0-9]{9,}", name))


def places(folder: Path) -> dict[int, Path]:
    """Step -> where its checkpoint is, also where a save was killed that replaced it."""
    old = (path for path in sorted(folder.glob(".old-*")) if re.match(r"\.old-[0-9]+-", path.name))
    found = {int(path.name.split("-")[1]): path for path in old}
    return found | {step: path_of(folder, step) for step in steps(folder)}


def corrupt(folder: Path) -> list[Path]:
    """The damaged checkpoints that were kept."""
    return sorted(folder.glob("step_*.corrupt"))


def leftovers(folder: Path) -> list[Path]:
    """What killed saves and deletions left, but for a checkpoint that has no other copy."""
    found = (path for kind in ("tmp", "old", "gone") for path in folder.glob(f".{kind}-*"))
    return sorted(set(found) - set(places(folder).values()))


def sha256(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, dict]:
    """Name of each file below a folder -> its size and SHA-256."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(p for p in folder.rglob("*") if p.is_file())
    }


def write_manifest(path: Path, step: int, meta: dict, leaves: dict) -> None:
    """Describes a checkpoint whose arrays are written."""
    manifest = {
        "schema": SCHEMA,
        "step": step,
        "meta": meta,
        "leaves": leaves,
        "files": file_digests(path / "state"),
    }
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1))
    (path / DIGEST).write_text(f"{sha256(path / MANIFEST)}  {MANIFEST}\n")


def read_manifest(path: Path) -> dict:
    """The manifest of a checkpoint.

    Raises:
      ValueError: it is damaged.
      UserError: another version wrote it.
    """
    digest = path / DIGEST
    if not digest.exists():
        raise ValueError(f"{DIGEST}: missing")
    if digest.read_bytes() != f"{sha256(path / MANIFEST)}  {MANIFEST}\n".encode():
        raise ValueError(f"{MANIFEST} and {DIGEST} do not match")
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except ValueError as error:
        raise ValueError(f"{MANIFEST}: {error}") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    # JSON's true and 2.0 would pass for integers.
    if type(schema) is not int or schema < 1:
        raise ValueError(f"{MANIFEST}: schema {schema!r}")
    if schema != SCHEMA:
        raise UserError(
            f"checkpoint {path} has schema {schema} and this version reads {SCHEMA}: another "
            "anigan_jax wrote it. Use that one; nothing was changed"
        )
    if not _has(manifest, FIELDS):
        raise ValueError(f"{MANIFEST}: some of {', '.join(FIELDS)} is missing or of another type")
    for part, form in (("leaves", LEAF), ("files", FILE)):
        for name, one in manifest[part].items():
            if not _has(one, form):
                raise ValueError(f"{MANIFEST}: {part}: {name} is not described in full")
    return manifest


def _has(part: object, form: dict[str, type]) -> bool:
    return isinstance(part, dict) and all(type(part.get(k)) is kind for k, kind in form.items())


def examine(path: Path, step: int) -> tuple[dict, list[str]]:
    """The manifest of the checkpoint of a step, and every fault of its files.

    Returns:
      (manifest, []) where it is whole, else ({}, faults).

    Raises:
      UserError: a newer version wrote it.
      MachineError: it cannot be read now, which says nothing about it.
    """
    try:
        manifest = read_manifest(path)
        found = file_digests(path / "state")
    except ValueError as error:
        return {}, [str(error)]
    except OSError as error:
        # A bad sector and a missing file are damage; too many open files are not.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO):
            raise MachineError(f"{path} cannot be read: {error}; nothing was changed") from None
        return {}, [f"{Path(error.filename or path).name}: {error.strerror}"]
    known = manifest["files"]
    faults = [f"state/{name}: missing" for name in known.keys() - found.keys()]
    faults += [f"state/{name}: unknown file" for name in found.keys() - known.keys()]
    faults += [
        f"state/{name}: changed"
        for name in known.keys() & found.keys()
        if known[name] != found[name]
    ]
    if manifest["step"] != step:
        faults.append(f"{MANIFEST}: it is of step {manifest['step']}")
    return ({}, sorted(faults)) if faults else (manifest, [])


def set_aside(path: Path, folder: Path, step: int) -> Path:
    """Renames a damaged checkpoint to ….corrupt, beside those of other times."""
    name, others = path_of(folder, step).name, 0
    target = folder / f"{name}.corrupt"
    while target.exists():
        others += 1
        target = folder / f"{name}.{others}.corrupt"
    path.rename(target)
    return target


def recover(folder: Path) -> None:
    """Gives a checkpoint its name back where a save was killed that replaced it.

    Only for the process that holds the run folder.
    """
    for step, path in places(folder).items():
        if path.name.startswith("."):
            path.rename(path_of(folder, step))


def delete(folder: Path, step: int) -> None:
    """Deletes a checkpoint: gone at one instant, so nobody sees a part of it."""
    gone = folder / f".gone-{step}-{os.getpid()}"
    # In a container, the process that was killed had the same number.
    shutil.rmtree(gone, ignore_errors=True)
    path_of(folder, step).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def is_kept(path: Path) -> bool:
    """Whether a checkpoint was written to be kept, whatever the settings are now."""
    with contextlib.suppress(OSError, ValueError, UserError):
        return bool(read_manifest(path)["meta"].get("kept"))
    return False


def prune(folder: Path, keep: int, every: Every = NEVER, *spared: int | None) -> list[int]:
    """Deletes all but the newest `keep` checkpoints, and what was left by kills.

    Checkpoints of steps that `every` names stay, those that were written to be kept, and those
    `spared`.

    Returns:
      The steps that were deleted.
    """
    recover(folder)
    old = steps(folder)[:-keep]
    old = [step for step in old if step not in spared and not every.due(step)]
    deleted = [step for step in old if not is_kept(path_of(folder, step))]
    for step in deleted:
        delete(folder, step)
    for path in leftovers(folder):
        shutil.rmtree(path, ignore_errors=True)
    return deleted
