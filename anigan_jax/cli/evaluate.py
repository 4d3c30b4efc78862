"""The verbs that measure: how good images are, how well prompts are obeyed, what D knows."""

from __future__ import annotations

import contextlib
import json as jsons
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from tyro.conf import Positional, UseAppendAction, arg

from anigan_jax import api
from anigan_jax.cli.common import (
    AsJson,
    Checkpoint,
    RunDir,
    Seed,
    Trust,
    Weights,
    at_least,
    need_classifier,
    need_seed,
    told_left_out,
    writing,
)
from anigan_jax.data import archives
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert
from anigan_jax.report import tables
from anigan_jax.report.table import as_text
from anigan_jax.runtime.progress import Stages
from anigan_jax.sampling import grids
from anigan_jax.storage import atomic, manifest, run_dir
from anigan_jax.storage.run_dir import out_dir

Report = Annotated[Path | None, arg(metavar="FILE.json")]


def evaluate(
    run: Annotated[
        Path, Positional, arg(metavar="RUN|IMAGES", help="a run, or images of any model")
    ],
    *,
    against: Annotated[str, arg(metavar="DATA")] = "",
    data: Annotated[str, arg(metavar="DATA")] = "",
    domain: Literal["ask", "a", "b", "both"] = "ask",
    size: Annotated[int | None, arg(metavar="PX")] = None,
    out: Report = None,
    n: Annotated[int | None, arg(metavar="N")] = None,
    seed: Seed = 0,
    judge: Annotated[
        tuple[str, ...], UseAppendAction, arg(metavar="vgg16|inception|random|RUN")
    ] = (),
    vgg16: Annotated[str, arg(metavar="FILE")] = "",
    inception: Annotated[str, arg(metavar="FILE")] = "",
    classifier: Annotated[Path | None, arg(metavar="RUN")] = None,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
    json: AsJson = False,
) -> int:
    """Scores of what a run makes, or of images, beside those of real held-out images; exit code 1
    if one of the images cannot be used.

    Args:
      against: real images by which to judge IMAGES (a folder, zip or tar); given like
        --data.path in training.
      data: where the images of a run are now, if they were moved.
      domain: which domain of --against, if it has two.
      size: side in pixels at which images are compared; if omitted: that of the first image, or
        of the pack.
      out: the report, with its pictures beside it; if omitted: in RUN/out/evaluate, or nowhere
        for IMAGES.
      n: how many images to generate (10000) or, with --against, how many of the given images to
        use, drawn by --seed. Not for translations, which use all held-out photos.
      judge: feature network; vgg16 if omitted; random needs no download; RUN: a classifier's.
        Given twice, the tables show both.
      vgg16: file of its weights; if omitted: those in the cache.
      inception: the same for Inception-v3 (FID).
      classifier: run of a classifier, to count the combinations of classes that appear.
    """
    if n is not None:
        at_least("--n", n, 2)
    need_seed(seed)
    _check_subject(run, against, out, alone=size is None and domain == "ask")
    if against and data:
        raise UserError("--against is for images, --data for a run; give only one")
    if against:
        judged = _images(run, against, domain, size, n, seed)
    else:
        judged = _run(run, data, checkpoint, weights, trust)
    colors = None
    if classifier:
        colors = api.load(classifier, "latest", trust=trust)
        _held_out_of(classifier, colors, judged.size)
    vgg, note = _perceptual(vgg16)
    # Here: no other verb needs the training code.
    from anigan_jax.evaluation import checkpoint_quality, features, prompt_accuracy

    # Against true partners a translation can be judged without any network.
    judges = judge or (() if judged.translates and not vgg else ("vgg16",))
    weights_of = {"vgg16": vgg16, "inception": inception}
    networks = features.on_backgrounds(features.several(judges, weights_of), judged.channels)
    wanted = checkpoint_quality.Wanted(n, seed, networks, vgg, colors.model if colors else None)
    with contextlib.closing(Stages()) as report:
        found, pictures = judged.measure(wanted, report)
    text = jsons.dumps(prompt_accuracy.as_json(found), indent=1)
    # Shown first: a disk may refuse it.
    _show(text, tables.quality, json)
    paths = _kept(text, pictures, out, judged.place)
    if not json:
        print("\n".join(["", *(str(line) for line in (note, *paths) if line)]))
    return judged.code


def _kept(text: str, pictures: dict, out: Path | None, place: Path | None) -> list[Path]:
    """Writes a report and its pictures: to `out`, else to its own place, where it has one."""
    from anigan_jax.evaluation import checkpoint_quality

    with writing(out or place or Path()):
        if place and not out:
            out = checkpoint_quality.place_beside(place, jsons.loads(text), pictures)
        return checkpoint_quality.write(text, pictures, out) if out else []


def _show(text: str, table: Callable, json: bool) -> None:
    """Prints a report: as it is, or as tables."""
    print(text if json else as_text(table(jsons.loads(text)), folded=True), flush=True)


class _Judged(NamedTuple):
    """What is evaluated.

    Attributes:
      size: side in pixels.
      channels: 3, or 4 of transparent images.
      translates: whether it comes from photos.
      measure: (`checkpoint_quality.Wanted`, notify) -> a report and pictures.
      place: of the report, where none is given.
      code: of the verb.
    """

    size: int
    channels: int
    translates: bool
    measure: Callable
    place: Path | None = None
    code: int = 0


def _check_subject(run: Path, against: str, out: Path | None, alone: bool) -> None:
    """Refuses a run with the flags of images, images without real ones, and a wrong --out."""
    _check_report(out)
    home = run_dir.found(run)
    recorded = run_dir.is_run(home) or home != run
    if against:
        from anigan_jax.evaluation import images_of_any_model

        images_of_any_model.refuse_runs(run, against)
    if not against and not alone:
        raise UserError("--size and --domain need --against DATA")
    if not against and not recorded and (run.is_dir() or archives.is_archive(run)):
        raise UserError(
            f"{run} is not a run directory; to judge images, say which are the real ones: "
            f"--against DATA{manifest.hint(run)}"
        )


def _check_report(out: Path | None) -> None:
    if out and out.suffix != ".json":
        raise UserError(f"--out {out} must end in .json")


def _run(run: Path, data: str, checkpoint: str, weights: Weights, trust: bool) -> _Judged:
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    pack, translates = _data(trained, data), bool(trained.method.translate)

    def measure(wanted, notify):
        from anigan_jax.evaluation import checkpoint_quality
        from anigan_jax.training.input import rows

        data = rows(trained.config, pack, "test") if translates else {}
        what = trained.model, trained.config, pack, data
        return checkpoint_quality.measure(*what, wanted, notify)

    place = out_dir(run, "evaluate") / f"step_{trained.step:09d}{trained.model.tag}.json"
    method = trained.config.method
    return _Judged(method.size, method.channels, translates, measure, place)


def _data(trained: api.Trained, path: str) -> Pack:
    """The images of a run, where they are now; those of another set are told."""
    pack = trained.data_pack(path)
    known = trained.data_sha256
    if known and known != pack.manifest["sha256"]:
        print("note: these are not the images that the run was trained on", file=sys.stderr)
    return pack


def _images(
    given: Path, against: str, domain: str, size: int | None, n: int | None, seed: int
) -> _Judged:
    """Images of any model, cropped and resized as the real ones are."""
    if size is not None:
        at_least("--size", size, 1)
    # Here: no other verb needs the training code.
    from anigan_jax.evaluation import checkpoint_quality, images_of_any_model

    pack, found = images_of_any_model.files(given, against, domain, size)
    size = pack.images.shape[1]
    pixels = images_of_any_model.some(found.images[size], n, seed, str(given))

    def measure(wanted, notify):
        report, pictures = checkpoint_quality.measure_images(pixels, pack, wanted, notify)
        about = {"images": str(given), "against": against, "size": size}
        return {**about, "left_out": len(found.left_out), **report}, pictures

    return _Judged(size, pack.images.shape[-1], False, measure, code=told_left_out(found))


def accuracy(
    run: RunDir,
    *,
    classifier: Annotated[Path, arg(metavar="RUN")],
    out: Report = None,
    n: int = 8,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
    json: AsJson = False,
) -> int:
    """How often prompts are obeyed, by a classifier of real images.

    Args:
      classifier: a run of a classifier.
      out: the report; if omitted: in RUN/out/accuracy.
      n: images for each combination of classes, of 256 at most.
    """
    at_least("--n", n, 1)
    need_seed(seed)
    _check_report(out)
    colors = api.load(classifier, "latest", trust=trust)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    held_out = _held_out_of(classifier, colors, trained.config.method.size)
    from anigan_jax.evaluation import prompt_accuracy

    found = prompt_accuracy.measure(trained.model, colors.model, n, seed)
    images, labels = held_out.part("test"), held_out.labels("test")
    found["ceiling"] = prompt_accuracy.ceiling(colors.model, images, labels)
    found["classifier"] = str(classifier)
    found["same_data"] = colors.recorded["data_sha256"] == trained.data_sha256
    path = out or out_dir(run, "accuracy") / f"{grids.stem(trained.model, seed)}.json"
    text = jsons.dumps(prompt_accuracy.as_json(found), indent=1)
    _show(text, tables.accuracy, json)
    _save(text, path, json)
    return 0


def probe(
    run: RunDir,
    *,
    data: Annotated[str, arg(metavar="DATA")] = "",
    out: Report = None,
    n: int = 2000,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
    json: AsJson = False,
) -> int:
    """What D's features tell: real or generated, hair, eyes (UCSD).

    Args:
      data: where the images of the run are now, if they were moved.
      out: the report; if omitted: in RUN/out/probe.
      n: images to fit on in each task.
    """
    at_least("--n", n, 20)
    need_seed(seed)
    _check_report(out)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    pack = _data(trained, data)
    from anigan_jax.evaluation import linear_probe, prompt_accuracy

    found = linear_probe.measure(trained.config, trained.model, pack, n, seed)
    path = out or out_dir(run, "probe") / f"step_{found['step']:09d}{trained.model.tag}.json"
    text = jsons.dumps(prompt_accuracy.as_json(found), indent=1)
    _show(text, tables.probe, json)
    _save(text, path, json)
    return 0


def _save(text: str, path: Path, json: bool) -> None:
    with writing(path):
        atomic.save_text(text, path)
    if not json:
        print(f"\n{path}")


def _held_out_of(name: Path, classifier: api.Trained, size: int) -> Pack:
    """The held-out data of a classifier; refuses one that cannot judge images of `size` px."""
    need_classifier(name, classifier, size)
    if not classifier.recorded:
        raise UserError(f"{name} holds only weights; its run directory knows its held-out images")
    pack = api.data_of(classifier.config)
    if "test" not in pack.manifest["parts"]:
        raise UserError(f"{name} held out no images (--data.test), so there is no ceiling")
    if pack.manifest["sha256"] != classifier.recorded["data_sha256"]:
        raise UserError(f"the data of {name} changed since it was trained; train it again")
    return pack


def _perceptual(path: str):
    """Weights of LPIPS, or None and why."""
    try:
        return convert.load("vgg16", path, heads=True), ""
    except UserError as error:
        if path:
            raise
        return None, f"scores by VGG16 are left out: {error}"
