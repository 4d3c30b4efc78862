"""Evaluates the checkpoints of a run while it trains.

Writes evaluation.jsonl, best.json and protocol.json.

It reads the state and draws latents of its own seed, so training has the same bits with it
and without.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from anigan_jax import intervals
from anigan_jax.config import Config
from anigan_jax.core import Method, PyTree, TrainState
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.evaluation import features, sample_quality
from anigan_jax.metrics.feature_scores import Features, kid_size, refusals, scores
from anigan_jax.runtime.signals import Interrupted, Stop
from anigan_jax.sampling.grids import Model, model_of, with_weights
from anigan_jax.storage import atomic, metrics_file
from anigan_jax.training import health
from anigan_jax.training.input import held_out, rows

SEED = 0
LINES, PROTOCOL, BEST = "evaluation.jsonl", "protocol.json", "best.json"
# Of protocol.json: what follows from the rest, and older runs may not have.
FOUND = ("floor", "refused")


class Evaluator:
    """Writes what is found of a run's checkpoints."""

    def __init__(self, config: Config, method: Method, pack: Pack, workdir: Path):
        """Writes nothing yet; `config` is resolved.

        Raises:
          UserError: the run cannot be evaluated as its settings ask.
        """
        self.config, self.method, self.pack, self.workdir = config, method, pack, workdir
        self.own = of_family(config, method, pack)
        self.networks: list[features.Network] = []
        self.panel: Callable | None = None
        self.file: metrics_file.MetricsFile | None = None
        self.intervals = intervals.of(config.run)
        features.check(config.run.eval_network)
        if self.intervals.evaluate:
            sample_quality.targets(method, pack)
            both = [name for name in (config.run.eval_network, config.run.eval_second) if name]
            found = features.several(both)
            self.networks = features.on_backgrounds(found, config.method.channels)

    def begin(self, at: int, state: TrainState, constants: PyTree, total: int) -> None:
        """Opens the files of a run that goes on from step `at` to step `total`."""
        self.constants, self.total = constants, total
        path = self.workdir / LINES
        # What an earlier start has found says which checkpoint is the best, also without a judge.
        if not (self.own or self.networks or path.exists()):
            return
        if self.networks:
            self.panel = of_panel(self.networks, self.config, self.method, self.pack, self.workdir)
        self.file = metrics_file.MetricsFile(path, at)
        here = [line for line in self.file.lines if line["step"] == at]
        # A run that was stopped here was not kept waiting for its scores.
        if 0 < at <= total and not here and (line := self._scores(at, state)):
            self.file.close()
            self.file = metrics_file.MetricsFile(path, at - 1)
            self._write({"step": at, **line})
        if at:
            # A kill may have come between the save and this.
            self.saved()

    def checkpoint(self, at: int, state: TrainState, stop: Stop) -> None:
        """Evaluates the state of a checkpoint to be; a signal leaves it for the next start."""
        try:
            with stop.interruptible():
                line = self._scores(at, state)
        except Interrupted:
            return
        if line:
            self._write({"step": at, **line})

    def _scores(self, at: int, state: TrainState) -> dict:
        """What is found of the state of a step; {} where none is due."""
        line: dict = {}
        # A signal makes checkpoints at other steps as well.
        if self.own and (self.intervals.checkpoint.due(at) or at >= self.total):
            line |= self.own(state, self.constants)
        if self._due(at):
            line |= self.panel(_on_host(state), self.constants)
        return line

    def best(self) -> metrics_file.Best | None:
        """The best checkpoint so far."""
        return metrics_file.best(list(self.file.lines)) if self.file else None

    def saved(self) -> None:
        """Writes down which checkpoint is the best, now that it exists."""
        best = self.best()
        if best:
            atomic.save_text(json.dumps(best._asdict()) + "\n", self.workdir / BEST)

    def sync(self) -> None:
        """To the disk, before the checkpoint that the lines are of."""
        if self.file:
            self.file.sync()

    def close(self) -> None:
        if self.file:
            self.file.close()

    def _due(self, at: int) -> bool:
        return bool(self.panel) and (self.intervals.evaluate.due(at) or at >= self.total)

    def _write(self, line: dict) -> None:
        warnings = health.of_scores([*self.file.lines, line])
        for message in warnings:
            warn(line["step"], message)
        self.file.write({**line, "warnings": warnings} if warnings else line)


def warn(step: int, message: str) -> None:
    """A sign of collapse, for whoever watches."""
    print(f"warning: step {step}: {message}", file=sys.stderr, flush=True)


def _on_host(state: TrainState) -> TrainState:
    """What makes images, fetched: one device draws and scores them, not each of many."""
    bare = state.replace(opt_state={}, extra_state={})
    return jax.tree.map(np.asarray, bare)


def of_family(config: Config, method: Method, pack: Pack) -> Callable | None:
    """(state, constants) -> what the family finds on held-out data; None without that."""
    if method.evaluate is None or not held_out(pack):
        return None
    data, weights = rows(config, pack, "test"), config.run.eval_weights

    def evaluate(state: TrainState, constants: PyTree) -> dict:
        # A classifier has nothing to choose; G's texts are not asked for.
        model = with_weights(Model(method, state, None, constants), weights)
        return method.evaluate(model.state, constants, data)

    return evaluate


def of_panel(
    networks: list[features.Network], config: Config, method: Method, pack: Pack, workdir: Path
) -> Callable:
    """(state, constants) -> scores of what it makes: {'kid-vgg16': ..., ...}, judge after judge.

    Writes protocol.json, with the floor of equally many real images and why scores are refused,
    which is told too; a run goes on under the protocol that it began with.

    Args:
      networks: the judges; the first one's scores decide which checkpoint is the best.

    Raises:
      UserError: it would be evaluated in another way than before.
    """
    targets, run = sample_quality.targets(method, pack), config.run
    weights = run.eval_weights or ("ema" if config.ema_half_life else "raw")
    counts, pools, floor, refused = {}, {}, {}, {}
    for network, (name, target) in itertools.product(networks, targets.items()):
        n = sample_quality.most(pack, target, run.evaluate_n)
        train = features.of_part(network, pack, target.train)
        # As many as will be made.
        like = np.resize(train, (n, network.dimensions))
        if target.held_out:
            n = min(n, len(pack.part(target.held_out)))
            like = features.of_part(network, pack, target.held_out)[:n]
            found = scores(like, train, SEED, kid_size(n, len(train)))
            floor |= _flat(name, network, found.values)
        sets = Features(like, train, SEED, kid_size(n, len(train)))
        refused |= _flat(name, network, refusals(sets))
        counts[name], pools[network.name, name] = n, train
    first, *more = networks
    how = {**sample_quality.protocol(first, pack, counts, SEED), "weights": weights}
    # What else is compared, and how, is the same for all.
    how |= {"others": [network.protocol() for network in more]} if more else {}
    how |= {"best": metrics_file.RULE, "floor": floor}
    how |= {"refused": refused} if refused else {}
    _same_protocol(how, workdir / PROTOCOL)
    for message in _told(refused, run.evaluate_n, pack):
        print(f"warning: {message}", file=sys.stderr, flush=True)

    def evaluate(state: TrainState, constants: PyTree) -> dict:
        line, model = {}, with_weights(model_of(method, state, constants), weights)
        made = {
            name: sample_quality.made(model, pack, name, target, counts[name], SEED)
            for name, target in targets.items()
        }
        for network, (name, images) in itertools.product(networks, made.items()):
            n, train = counts[name], pools[network.name, name]
            found = features.of_images(network, images)
            told = scores(found, train, SEED, kid_size(n, len(train)))
            line |= _flat(name, network, told.values)
        return line

    return evaluate


def _flat(name: str, network: features.Network, found: dict) -> dict:
    """Scores (or what else is known of them) by their names in a line: 'ab/kid-vgg16'."""
    front = "" if name == sample_quality.GENERATED else f"{name}/"
    return {f"{front}{score}-{network.name}": value for score, value in found.items()}


def _told(refused: dict[str, str], n: int, pack: Pack) -> Iterator[str]:
    """A sentence for each reason why scores are refused, with what would change it.

    Args:
      refused: name -> why, as in protocol.json; n: `run.evaluate_n`.
    """
    # Of one domain both are the same part.
    held = dict.fromkeys(sample_quality.held_out(pack, domain) for domain in "AB")
    counts = [f"{len(pack.part(part)):,}" for part in held if part]
    more = f" and hold more out ({' and '.join(counts)} are; --data.test)" if counts else ""
    for why in dict.fromkeys(refused.values()):
        names = ", ".join(name for name, other in refused.items() if other == why)
        yield (
            f"evaluations leave {names} out: {why}. For more images raise --run.evaluate-n "
            f"({n:,}){more}"
        )


def _same_protocol(now: dict, path: Path) -> None:
    if path.exists():
        old = json.loads(path.read_text())
        both = [k for k in dict.fromkeys((*now, "others")) if k not in FOUND]
        changed = [k for k in both if old.get(k) != now.get(k)]
        if changed:
            told = "; ".join(f"{k}: {old.get(k)} -> {now.get(k)}" for k in changed)
            raise UserError(
                f"{path.parent} was evaluated in another way ({told}), so scores would not be "
                f"comparable. Keep its settings, or delete {path} and {path.with_name(LINES)}"
            )
    atomic.save_text(json.dumps(now, indent=1) + "\n", path)
