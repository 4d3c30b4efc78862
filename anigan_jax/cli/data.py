"""The verbs that look at data: import and check; nothing here starts JAX unless asked."""

from __future__ import annotations

import json as jsons
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, Suppress, arg

from anigan_jax.cli.common import AsJson
from anigan_jax.data import dataset, discover, ingest, scratch
from anigan_jax.data.decode import NOTED, REFUSED
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.report import data
from anigan_jax.report.table import as_text

SourceA = Annotated[
    str,
    Positional,
    arg(metavar="SOURCE", help="a folder, .zip, .tar, tfds:NAME, or a pack"),
]
SourceB = Annotated[
    str,
    Positional,
    arg(metavar="SOURCE_B", help="the second domain, if it is a separate source"),
]
More = Annotated[
    tuple[str, ...],
    Positional,
    arg(metavar="", help="not used: join several sources of one set with --also"),
]


@dataclass(frozen=True)
class Settings(Images):
    """Every setting of `Images` but the paths, which stand without flags."""

    path: Suppress[str] = ""
    path_b: Suppress[str] = ""
    # A choice of the training: a pack holds both.
    domain: Suppress[str] = "ask"


DEFAULT = Settings()
# --size, not --settings.size.
Flags = Annotated[Settings, arg(name="")]


def import_(
    source: SourceA,
    source_b: SourceB = "",
    more: More = (),
    *,
    out: Annotated[Path, arg(metavar="PACK")],
    overwrite: bool = False,
    landmarks: bool = False,
    settings: Flags = DEFAULT,
) -> int:
    """Pack images for training: checked, cropped, resized.

    Args:
      out: folder of the pack to be made.
      overwrite: replace another pack there.
      landmarks: also pack 68 face landmarks of domain A, or of all images.
    """
    images = _images(settings, source, source_b, more)
    detect = None
    if landmarks and images.channels == 4:
        raise UserError("--landmarks is for CartoonGAN, which takes no transparent images")
    if landmarks:
        from anigan_jax.perceptual import landmarks as faces
        from anigan_jax.runtime import environment

        environment.prepare("cpu")
        detect = faces.detect
    pack, there = dataset.import_to(
        images, out, overwrite=overwrite, report=progress("importing"), landmarks=detect
    )
    manifest = pack.manifest
    parts = ", ".join(f"{name} {stop - start}" for name, (start, stop) in manifest["parts"].items())
    state = "unchanged, already imported" if there else "imported"
    print(f"{out}: {state}: {manifest['count']} images of {manifest['size']} px ({parts})")
    rules = {**REFUSED, **NOTED}
    for code, count in manifest["counts"].items():
        print(f"  {count:6}  {code}: {rules.get(code, '')}")
    if pack.labeled:
        told = ", ".join(f"{a.name} ({len(a.classes)})" for a in pack.attributes)
        print(f"  attributes, with their number of classes: {told}")
    if manifest.get("ignored"):
        print(f"  not read: {discover.counted(manifest['ignored'])}")
    if "trainA" in manifest["parts"]:
        print("  two domains: to train on one domain, give --data.domain a, b or both")
    if not there:
        print(f"next: anigan train CONFIG --workdir RUN --data.path {out}")
    return 0


def check(
    source: SourceA,
    source_b: SourceB = "",
    more: More = (),
    *,
    json: AsJson = False,
    html: Annotated[Path | None, arg(metavar="PAGE")] = None,
    settings: Flags = DEFAULT,
) -> int:
    """Every fault in the data with its reason; exit code 1 where files are unusable.

    Args:
      html: also write a page to look at.
    """
    images = _images(settings, source, source_b, more)
    dataset.refuse_pack_of_two(images)
    if dataset.is_pack(Path(source)):
        if html:
            raise UserError(
                "of a pack, only its own files are checked; --html needs unpacked images"
            )
        pack = dataset.open_pack(Path(source))
        dataset.verify(pack)
        count = pack.manifest["count"]
        told = f"{source}: a pack of {count} images, every byte as written"
        print(jsons.dumps({"pack": source, "images": count}, indent=1) if json else told)
        return 0
    with scratch.temporary(scratch.default_cache(), "check") as temp:
        found = ingest.scan(images, temp, report=progress("checking"))
        report = data.summary(source + (f" and {source_b}" if source_b else ""), found)
        if html:
            try:
                data.write_page(report, found, html)
            except OSError as error:
                raise UserError(f"{html} cannot be written: {error.strerror}") from None
    print(jsons.dumps(report, indent=1) if json else as_text(data.tables(report)))
    if html and not json:
        print(f"\npage: {html}")
    return 1 if not found.order or (found.faults and images.policy == "error") else 0


def _images(settings: Settings, source: str, source_b: str, more: tuple[str, ...]) -> Images:
    if more:
        listed = " ".join((source, "--also", source_b, *more))
        raise UserError(
            f"give one source, or two for two domains; to join sources into one set: {listed}"
        )
    return Images(**{**vars(settings), "path": source, "path_b": source_b})


def progress(what: str, unit: str = "image"):
    """A callback (done, all) that draws a bar on a terminal."""
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    bar = tqdm(unit=unit, desc=what, dynamic_ncols=True)

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return report
