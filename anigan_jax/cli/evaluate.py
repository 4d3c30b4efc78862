"""The verbs that measure: how good images are, how well prompts are obeyed, what D knows."""

from __future__ import annotations

import contextlib
import json as jsons
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from anigan_jax import api
from anigan_jax.cli.common import AsJson, Checkpoint, RunDir, Seed, Trust, Weights, at_least
from anigan_jax.config import FeatureNetwork
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.perceptual import convert
from anigan_jax.report import tables
from anigan_jax.report.table import as_text
from anigan_jax.runtime.progress import Stages
from anigan_jax.sampling import grids
from anigan_jax.storage import atomic
from anigan_jax.storage.run_dir import out_dir


def evaluate(
    run: RunDir,
    *,
    n: Annotated[int | None, arg(metavar="N")] = None,
    seed: Seed = 0,
    judge: UseAppendAction[tuple[FeatureNetwork, ...]] = (),
    vgg16: Annotated[str, arg(metavar="FILE")] = "",
    inception: Annotated[str, arg(metavar="FILE")] = "",
    classifier: Annotated[Path | None, arg(metavar="RUN")] = None,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
    json: AsJson = False,
) -> int:
    """Scores of what a run makes, beside those of real held-out images.

    Args:
      n: generated images (10000); translations are of all held-out photos.
      judge: feature network; vgg16 if not given; random needs no download.
      vgg16: its weights; else those in the cache.
      inception: the same of Inception-v3 (FID).
      classifier: a run that counts the combinations of classes that appear.
    """
    if n is not None:
        at_least("--n", n, 2)
    at_least("--seed", seed, 0)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    pack = api.data_of(trained.config)
    colors = None
    if classifier:
        colors = api.load(classifier, "latest", trust=trust)
        _held_out_of(classifier, colors, trained)
    vgg, note = _perceptual(vgg16)
    # Here: no other verb needs the training code.
    from anigan_jax.evaluation import checkpoint_quality, features
    from anigan_jax.training.input import rows

    files = {"vgg16": vgg16, "inception": inception}
    judges = dict.fromkeys(judge or ("vgg16",))
    # Against true partners a translation can be judged without any network.
    if not vgg and trained.method.translate and not judge:
        judges = {}
    networks = [features.find(name, files.get(name, "")) for name in judges]
    data = rows(trained.config, pack, "test") if trained.method.translate else {}
    wanted = checkpoint_quality.Wanted(n, seed, networks, vgg, colors.model if colors else None)
    with contextlib.closing(Stages()) as report:
        found, pictures = checkpoint_quality.measure(
            trained.model, trained.config, pack, data, wanted, report
        )
    paths = checkpoint_quality.write(found, pictures, run, trained.model.tag)
    text = paths[0].read_text()
    if json:
        print(text)
        return 0
    print(as_text(tables.quality(jsons.loads(text)), folded=True), end="\n\n")
    print("\n".join(str(line) for line in (note, *paths) if line))
    return 0


def accuracy(
    run: RunDir,
    *,
    classifier: Annotated[Path, arg(metavar="RUN")],
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
      n: images for each combination of classes, of 256 at most.
    """
    at_least("--n", n, 1)
    at_least("--seed", seed, 0)
    colors = api.load(classifier, "latest", trust=trust)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    held_out = _held_out_of(classifier, colors, trained)
    from anigan_jax.evaluation import prompt_accuracy

    found = prompt_accuracy.measure(trained.model, colors.model, n, seed)
    images, labels = held_out.part("test"), held_out.labels("test")
    found["ceiling"] = prompt_accuracy.ceiling(colors.model, images, labels)
    found["classifier"] = str(classifier)
    found["same_data"] = colors.recorded["data_sha256"] == trained.recorded["data_sha256"]
    path = out_dir(run, "accuracy") / f"{grids.stem(trained.model, seed)}.json"
    text = jsons.dumps(prompt_accuracy.as_json(found), indent=1)
    atomic.save_text(text, path)
    print(text if json else f"{as_text(tables.accuracy(jsons.loads(text)))}\n\n{path}")
    return 0


def probe(
    run: RunDir,
    *,
    n: int = 2000,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
    json: AsJson = False,
) -> int:
    """What D's features tell: real or generated, hair, eyes (UCSD).

    Args:
      n: images to fit on in each task.
    """
    at_least("--n", n, 20)
    at_least("--seed", seed, 0)
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    pack = api.data_of(trained.config)
    from anigan_jax.evaluation import linear_probe, prompt_accuracy

    found = linear_probe.measure(trained.config, trained.model, pack, n, seed)
    path = out_dir(run, "probe") / f"step_{found['step']:09d}{trained.model.tag}.json"
    text = jsons.dumps(prompt_accuracy.as_json(found), indent=1)
    atomic.save_text(text, path)
    print(text if json else f"{as_text(tables.probe(jsons.loads(text)))}\n\n{path}")
    return 0


def _held_out_of(name: Path, classifier: api.Trained, run: api.Trained) -> Pack:
    """The held-out data of a classifier; refuses one that cannot judge a run."""
    if classifier.method.classify is None:
        raise UserError(f"{name} is not a run of a classifier; train colour_classifier")
    pack = api.data_of(classifier.config)
    if "test" not in pack.manifest["parts"]:
        raise UserError(f"{name} held no images out (--data.test); no ceiling is known")
    if pack.manifest["sha256"] != classifier.recorded["data_sha256"]:
        raise UserError(f"the data of {name} changed since it was trained; train it anew")
    sizes = classifier.config.method.size, run.config.method.size
    if sizes[0] != sizes[1]:
        raise UserError(f"{name} judges images of {sizes[0]} px, but the run makes {sizes[1]} px")
    return pack


def _perceptual(path: str):
    """Weights of LPIPS, or None and why."""
    try:
        return convert.load("vgg16", path, heads=True), ""
    except UserError as error:
        if path:
            raise
        return None, f"what VGG16 judges is left out: {error}"
