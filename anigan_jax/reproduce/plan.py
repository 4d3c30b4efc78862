"""What reproducing a report trains and shows, as data; and how a budget shortens it.

A report counts its training in parts: epochs, or iterations. Everything that happens at a part
of the report happens at the same share of a run here, whatever the budget and the data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from anigan_jax import config_file
from anigan_jax.config import Config
from anigan_jax.errors import UserError
from anigan_jax.perceptual import store
from anigan_jax.report.table import Table, percent
from anigan_jax.reproduce import departures
from anigan_jax.reproduce.departures import Departed

FEWEST_CHANNELS = 4
# In the order in which CartoonGAN prefers them.
FEATURES = ("vgg19", "vgg16")
VGG16 = ["--method.features.network", "vgg16", "--method.features.layer", "conv4_3"]
# Seconds to compile a step, draw and save; and images that VGG16 judges in a second on 2 cores.
OVERHEAD, JUDGED_A_SECOND = 20, 40


@dataclass(frozen=True)
class Training:
    """A run that experiments of a report need.

    Attributes:
      name: of its folder.
      images: real images in the batches of the report's training, a batch for each step: what a
        schedule repeats or leaves out is not counted.
      parts: into how many epochs or iterations (`unit`) the report divides it.
      small: (images, batch) at budget 'small'.
      speed: images a second on 2 CPU cores (at full width, at a quarter of it): estimates, by
        FLOPs from runs that were timed.
      flags: of `anigan train`.
      scheduled: flags whose values are parts of the report, here steps.
      shown, kept, judged: parts after which there is a preview, a checkpoint, a score.
      needs: of 'photos', 'vgg', 'colors' (labels of hair and eyes).
      encoder: name of the training of its text encoder.
      whose: number `images` is: the config's where the report has no such run or length.
    """

    name: str
    config: str
    images: int
    parts: int
    small: tuple[int, int]
    speed: tuple[float, float]
    flags: tuple[str, ...] = ()
    unit: str = "epoch"
    scheduled: tuple[tuple[str, tuple[int, ...]], ...] = ()
    shown: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    judged: tuple[int, ...] = ()
    seed: int = 0
    needs: tuple[str, ...] = ()
    encoder: str = ""
    whose: str = "the report's"


class Picture(NamedTuple):
    """A picture below the working directory."""

    path: str
    caption: str


Show = Callable[["Work"], Iterable[Table | Picture]]
"""Makes figures or tables of finished runs; raises UserError where it cannot."""


@dataclass(frozen=True)
class Experiment:
    """Something that a report did and what it says came of it.

    Attributes:
      name: for --only.
      place: where the report has it.
      claim: what it says, in our words.
      runs: names of the trainings it needs.
    """

    name: str
    title: str
    place: str
    claim: str
    runs: tuple[str, ...]
    shows: tuple[Show, ...]


@dataclass(frozen=True)
class Report:
    """One of the five reports: `trainings` in any order, `experiments` in its own."""

    name: str
    title: str
    authors: str
    institution: str
    trainings: tuple[Training, ...]
    experiments: tuple[Experiment, ...]


class Budget(NamedTuple):
    """How much of a report is trained.

    Attributes:
      size: a training's (images, batch); None: the report's images, the config's batch.
      width: share of the config's channels.
      judge_n: images of each evaluation.
    """

    name: str
    size: Callable[[Training], tuple[int, int] | None]
    width: float
    judge_n: int


FULL = Budget("full", lambda training: None, 1.0, 5000)
HALF = Budget("half", lambda training: None, 0.5, 3000)
SMALL = Budget("small", lambda training: training.small, 0.25, 300)
BUDGETS = {budget.name: budget for budget in (SMALL, HALF, FULL)}


class Place(NamedTuple):
    """Where images come from and runs go to, and which networks there are to judge them.

    Attributes:
      photos: '' where none were given.
      judge: feature network of the scores: 'vgg16', or 'random' where that is not there.
      features: network of CartoonGAN's content: 'vgg19', 'vgg16', or '' where both are missing.
    """

    workdir: Path
    data: str
    photos: str = ""
    judge: str = "random"
    features: str = ""

    def run(self, name: str) -> Path:
        return self.workdir / "runs" / name


class Planned(NamedTuple):
    """A training under a budget.

    Attributes:
      full: the config as it is; `config`: with the flags.
      flags: after `anigan train CONFIG --workdir RUN`.
      steps: of the whole run.
      missing: why it cannot be trained; '' where it can.
    """

    training: Training
    folder: Path
    full: Config
    config: Config
    flags: tuple[str, ...]
    steps: int
    seconds: float
    missing: str

    @property
    def command(self) -> tuple[str, ...]:
        words = ("anigan", "train", self.training.config, "--workdir", str(self.folder))
        return (*words, *self.flags)

    @property
    def images(self) -> int:
        """Real images that the whole run sees."""
        return self.steps * self.config.batch_size

    def at(self, part: int) -> int:
        """The step at which this run has come as far as the report after a part."""
        return step_at(part, self.training.parts, self.steps)

    def budget(self) -> str:
        """'48,000 images seen, 4.0 % of the report's 1,200,000; 16 of 64 channels; ...'."""
        wide, here = (next(iter(widths(c).values()), 0) for c in (self.full, self.config))
        schedule = getattr(self.config.method, "schedule", None)
        repeats = schedule and (schedule.kind, schedule.d, schedule.g) != ("fixed", 1, 1)
        more = "; one batch per step, whatever its schedule repeats" if repeats else ""
        more += "; content by VGG16, not VGG19" if VGG16[0] in self.flags else ""
        return (
            f"{self.images:,} images seen, {percent(self.images / self.training.images)} of "
            f"{self.training.whose} {self.training.images:,}; {here} of {wide} channels; "
            f"batch {self.config.batch_size}{more}"
        )


class Untrained(UserError):
    """A run that a table or figure needs is not there; who trains them says why."""


class Work(NamedTuple):
    """What experiments are made from.

    Attributes:
      departs: settings that differ from the report's in every run that has them, 'PATH=VALUE'.
    """

    report: Report
    budget: Budget
    place: Place
    runs: dict[str, Planned]
    departs: tuple[str, ...] = ()

    def finished(self, name: str) -> bool:
        """Whether a run has its last checkpoint."""
        planned = self.runs[name]
        return (planned.folder / "checkpoints" / f"step_{planned.steps:09d}").exists()

    def run(self, name: str) -> Planned:
        """A finished run.

        Raises:
          Untrained: it is not finished.
        """
        if not self.finished(name):
            raise Untrained(f"the run {name} has not been trained")
        return self.runs[name]

    def those(self, names: Iterable[str]) -> list[str]:
        """Those of some runs that are finished.

        Raises:
          Untrained: none is.
        """
        found = [name for name in names if self.finished(name)]
        if not found:
            raise Untrained(f"of the runs {', '.join(names)} none has been trained")
        return found

    def picture(self, path: Path, caption: str) -> Picture:
        """A picture that lies in the working directory."""
        return Picture(path.relative_to(self.place.workdir).as_posix(), caption)


def step_at(part: int, parts: int, steps: int) -> int:
    """The step of a run of `steps` that stands for a part of a report."""
    return min(steps, max(1, round(steps * part / parts)))


def widths(settings: Any, path: str = "") -> dict[str, int]:
    """Path of each network's `base_channels` -> channels, as flags name them."""
    found = {}
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), f"{path}.{field.name}".strip(".")
        if field.name == "base_channels":
            found[name.replace("_", "-")] = value
        elif dataclasses.is_dataclass(value):
            found |= widths(value, name)
    return found


def plan(report: Report, budget: Budget, place: Place, departs: Sequence[str] = ()) -> Work:
    """Every training of a report under a budget; nothing is read but the config files.

    Args:
      departs: settings that differ from the report's, 'PATH=VALUE' each.

    Raises:
      UserError: a departure is not the user's to decide, or no run has such a setting.
    """
    full = {t.name: config_file.load(t.config) for t in report.trainings}
    changed = {
        t.name: departures.apply(
            full[t.name], departs, [*t.flags, *(f"--{flag}" for flag, _ in t.scheduled)]
        )
        for t in report.trainings
    }
    for departure in departs:
        refused = [one.refused.get(departure) for one in changed.values()]
        if refused[0] and all(refused):
            raise refused[0]
    runs = {
        t.name: _planned(t, full[t.name], changed[t.name], budget, place) for t in report.trainings
    }
    return Work(report, budget, place, runs, tuple(departs))


def _planned(
    training: Training, full: Config, changed: Departed, budget: Budget, place: Place
) -> Planned:
    size, own = budget.size(training), changed.config.batch_size
    images, batch = size or (training.images, own)
    if own != full.batch_size or "batch-size" in config_file.flags_of(changed.words):
        batch = own
    steps = max(1, round(images / batch))
    flags = [*_sources(training, place), *changed.words, *training.flags]
    if batch != own:
        flags += ["--batch-size", str(batch)]
    for name, channels in widths(full).items():
        narrow = max(FEWEST_CHANNELS, round(channels * budget.width))
        flags += [f"--{name}", str(narrow)] if narrow < channels else []
    for flag, parts in training.scheduled:
        flags += [f"--{flag}", *(str(step_at(p, training.parts, steps)) for p in parts)]
    if training.seed:
        flags += ["--seed", str(training.seed)]
    missing, extra = _requirements(training, place)
    flags += [*extra, *_intervals(training, budget, place.judge, steps)]
    # A departure may set what the place decides.
    config_file.refuse_repeats(flags)
    config = config_file.override(full, flags, f"anigan train {training.config}")
    judged = len(training.judged) * budget.judge_n
    seconds = OVERHEAD + images / _speed(training, budget) + judged / JUDGED_A_SECOND
    folder = place.run(training.name)
    return Planned(training, folder, full, config, tuple(flags), steps, seconds, missing)


def _speed(training: Training, budget: Budget) -> float:
    """Images a second, by the width between the two that are given."""
    full, quarter = training.speed
    return full * (quarter / full) ** (-math.log2(budget.width) / 2)


def _sources(training: Training, place: Place) -> Iterator[str]:
    if "photos" in training.needs:
        yield from ("--data.path", place.photos, "--data.path-b", place.data)
    else:
        yield from ("--data.path", place.data)
    if training.encoder:
        yield from ("--method.encoder.path", str(place.run(training.encoder)))


def _requirements(training: Training, place: Place) -> tuple[str, list[str]]:
    """Why a training cannot be made ('' where it can), and flags for what is there."""
    flags = VGG16 if "vgg" in training.needs and place.features == "vgg16" else []
    if "photos" in training.needs and not place.photos:
        return "it needs photographs of faces: --photos PATH (a folder, .zip or .tar)", flags
    if "vgg" in training.needs and not place.features:
        hints = " or ".join(store.INSTALL_HINTS[name] for name in FEATURES)
        return f"it needs the weights of VGG19, or of VGG16 in its place: {hints}", flags
    return "", flags


def networks() -> dict[str, str]:
    """The `judge` and `features` of a `Place`, by the weights that are installed."""
    there = [name for name in FEATURES if (store.cache_dir() / f"{name}.safetensors").is_file()]
    judge = "vgg16" if "vgg16" in there else "random"
    return {"judge": judge, "features": there[0] if there else ""}


def _intervals(training: Training, budget: Budget, judge: str, steps: int) -> Iterator[str]:
    """Flags that say when a run is shown, kept and judged."""

    def listed(parts: Sequence[int]) -> str:
        found = sorted({step_at(part, training.parts, steps) for part in parts})
        # A comma at its end makes a list of a single step too.
        return ",".join(map(str, found)) + ","

    yield from ("--run.steps", str(steps))
    quarter = max(1, steps // 4)
    # Whole dispatches, so that no single steps have to be compiled beside them.
    yield from ("--run.checkpoint-every", str(quarter - quarter % 10 or quarter))
    yield from ("--run.sample-every", listed((*training.shown, training.parts)))
    if training.kept:
        yield from ("--run.keep-every", listed(training.kept))
    if training.judged:
        yield from ("--run.evaluate-every", listed(training.judged))
        yield from ("--run.evaluate-n", str(budget.judge_n), "--run.eval-network", judge)


def chosen(report: Report, only: Sequence[str]) -> list[Experiment]:
    """The experiments of these names, in the report's order; all where none is named.

    Raises:
      UserError: the report has no such experiment.
    """
    known = [experiment.name for experiment in report.experiments]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise UserError(
            f"{report.name} has no experiment {unknown[0]!r}; choose from {', '.join(known)}"
        )
    return [e for e in report.experiments if not only or e.name in only]


def needed(experiment: Experiment, runs: dict[str, Planned]) -> list[Planned]:
    """The runs of an experiment in the order they must be trained, encoders first."""
    found: dict[str, Planned] = {}
    for name in experiment.runs:
        encoder = runs[name].training.encoder
        found |= {encoder: runs[encoder]} if encoder else {}
        found[name] = runs[name]
    return list(found.values())


def reason(planned: Planned, runs: dict[str, Planned]) -> str:
    """Why a run cannot be trained, itself or its encoder; '' where it can."""
    encoder = planned.training.encoder
    return planned.missing or (runs[encoder].missing if encoder else "")
