"""The verbs that look at data: import and check; nothing here starts JAX unless asked."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import tyro

from anigan_jax import config_file
from anigan_jax.data import dataset, ingest
from anigan_jax.data.images import Images
from anigan_jax.errors import UserError
from anigan_jax.report import data
from anigan_jax.report.table import as_text


def progress(what: str):
    """A callback (done, all) that draws a bar on a terminal."""
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    bar = tqdm(unit="image", desc=what, dynamic_ncols=True)

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return report


def _parse(verb: str, argv: list[str], flags) -> tuple[argparse.Namespace, Images]:
    """SOURCE [SOURCE_B], the verb's own flags, and every setting of Images."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, options in flags.items():
        parser.add_argument(name, **options)
    config_file.refuse_repeats(argv)
    known, rest = parser.parse_known_args(argv)
    usage = f"anigan {verb} SOURCE [SOURCE_B] " + " ".join(
        f"[{name}]" if o.get("action") else f"[{name} {o['metavar']}]" for name, o in flags.items()
    )
    paths = []
    while rest and not rest[0].startswith("-"):
        paths.append(rest.pop(0))
    about = "\n".join(f"{name}: {options['help']}" for name, options in flags.items())
    settings = tyro.cli(Images, args=rest, default=Images(), prog=usage, description=about)
    if not paths:
        raise UserError(f"say what to {verb}: {usage}")
    if len(paths) > 2:
        raise UserError(f"{verb} takes one source, or two domains; given were {', '.join(paths)}")
    given = dict(zip(("path", "path_b"), paths, strict=False))
    return known, Images(**{**settings.__dict__, **given})


def import_(argv: list[str]) -> int:
    """Packs a source for training."""
    flags = {
        "--out": {"metavar": "PACK", "type": Path, "help": "folder of the pack to be made"},
        "--overwrite": {"action": "store_true", "help": "replaces another pack there"},
        "--landmarks": {
            "action": "store_true",
            "help": "also packs 68 face landmarks of domain A, or of all images",
        },
    }
    known, source = _parse("import", argv, flags)
    if known.out is None:
        raise UserError("say where the pack goes: --out PACK")
    detect = None
    if known.landmarks:
        from anigan_jax.runtime import environment

        environment.prepare("cpu")
        from anigan_jax.perceptual import landmarks

        detect = landmarks.detect
    pack, there = dataset.import_to(
        source,
        known.out,
        overwrite=known.overwrite,
        report=progress("importing"),
        landmarks=detect,
    )
    manifest = pack.manifest
    parts = ", ".join(f"{name} {stop - start}" for name, (start, stop) in manifest["parts"].items())
    state = "unchanged, already imported" if there else "imported"
    print(f"{known.out}: {state}: {manifest['count']} images of {manifest['size']} px ({parts})")
    for code, count in manifest["counts"].items():
        print(f"  {count:6}  {code}")
    if not there:
        print(f"next: anigan train CONFIG --workdir RUN --data.path {known.out}")
    return 0


def check(argv: list[str]) -> int:
    """Looks at everything and lists every fault; exit code 1 where files are unusable."""
    flags = {
        "--json": {"action": "store_true", "help": "prints every finding as JSON"},
        "--html": {"metavar": "PAGE", "type": Path, "help": "writes a page to look at"},
    }
    known, source = _parse("check", argv, flags)
    where = source.path + (f" and {source.path_b}" if source.path_b else "")
    if dataset.is_pack(Path(source.path)):
        pack = dataset.open_pack(Path(source.path))
        dataset.verify(pack)
        print(f"{source.path}: a pack of {pack.manifest['count']} images, every byte as written")
        return 0
    with dataset.temporary(dataset.default_cache(), "check") as temp:
        found = ingest.scan(source, temp, report=progress("checking"))
        report = data.summary(where, found)
        if known.html:
            try:
                data.write_page(report, found, known.html)
            except OSError as error:
                raise UserError(f"{known.html} cannot be written: {error.strerror}") from None
    print(json.dumps(report, indent=1) if known.json else as_text(data.tables(report)))
    if known.html and not known.json:
        print(f"\npage: {known.html}")
    return 1 if not found.order or (found.faults and source.policy == "error") else 0
