"""What the PyTorch peers of our methods share: losses, optimizers, drawing of batches.

As a PyTorch user would write it for speed. Nothing is read back from the device.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from anigan_jax.config import Config
from anigan_jax.optimizers import Optimizer

IMAGES = 512
"""Images of the synthetic data, of each domain."""
# {"a": {"image": (b, 3, S, S)}, "b": {...}} as the core has it, and what G makes images of.
Batch = dict[str, Any]


@dataclass(frozen=True)
class Mode:
    """How a peer is executed."""

    channels_last: bool = False
    amp: bool = False
    """Forward passes and losses under autocast to bfloat16."""
    compiled: bool = False
    """The networks' forward through torch.compile."""
    device: str = "cpu"

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, network: nn.Module) -> nn.Module:
        """The network on the device, in its layout."""
        network = network.to(self.device, memory_format=self.layout)
        if self.compiled:
            # All shapes are fixed; two networks of one class would pass for dynamic ones.
            network.compile(dynamic=False)
        return network

    def autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.amp)


@dataclass(frozen=True)
class Adversarial:
    """Means over logits: D's terms of reals and of fakes (logits, label), and G's (logits)."""

    real: Callable[[Tensor, float], Tensor]
    fake: Callable[[Tensor, float], Tensor]
    g: Callable[[Tensor], Tensor]


def bce(logits: Tensor, label: float = 1.0) -> Tensor:
    """Binary cross-entropy of logits of any shape, () -> ()."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def squared(logits: Tensor, label: float = 1.0) -> Tensor:
    """Mean squared distance of logits to a label."""
    return F.mse_loss(logits, torch.full_like(logits, label))


ADVERSARIAL = {
    "non_saturating": Adversarial(bce, bce, bce),
    "minimax": Adversarial(bce, bce, lambda x: -bce(x, 0.0)),
    "least_squares": Adversarial(squared, squared, squared),
    "hinge": Adversarial(
        lambda x, label: F.relu(1 - x).mean(),
        lambda x, label: F.relu(1 + x).mean(),
        lambda x: -x.mean(),
    ),
    "wasserstein": Adversarial(
        lambda x, label: -x.mean(), lambda x, label: x.mean(), lambda x: -x.mean()
    ),
}


def optimizer(settings: Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a player, in PyTorch's quickest form.

    Raises:
      ValueError: PyTorch has no such optimizer.
    """
    s, weights = settings, list(network.parameters())
    rate, betas = s.learning_rate, (s.b1, s.b2)
    if s.name == "adam":
        return torch.optim.Adam(weights, rate, betas, s.epsilon, fused=True)
    if s.name == "adamw":
        return torch.optim.AdamW(weights, rate, betas, s.epsilon, s.weight_decay, fused=True)
    if s.name == "rmsprop":
        return torch.optim.RMSprop(weights, rate, s.decay, s.epsilon, foreach=True)
    if s.name == "sgd":
        return torch.optim.SGD(weights, rate, s.momentum, fused=True)
    raise ValueError(f"no peer of the optimizer {s.name!r}")


def translate(images: Tensor) -> Tensor:
    """DiffAugment's translation of (b, C, S, S) by up to an eighth, with zeros beyond."""
    side = images.shape[2]
    rows, most = torch.arange(side, device=images.device), side // 8
    shift = torch.randint(-most, most + 1, (2, len(images), 1, 1, 1), device=images.device)
    # Products with shifted identities: the gradient of a gather would be a scatter.
    down, right = (rows[:, None] - rows == shift).to(images.dtype)
    return down @ images @ right.mT


def recolor(images: Tensor, draws: Tensor) -> Tensor:
    """DiffAugment's brightness, saturation, contrast of (b, C, S, S) by (3, b) draws in [0, 1)."""
    bright, vivid, contrast = draws[..., None, None, None]
    images = images + (bright - 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2 * vivid)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, 0.5 + contrast)


def exchange(pool: list[Tensor], images: Tensor, size: int) -> Tensor:
    """Passes (b, 3, S, S) through a pool of `size` former ones (1, 3, S, S), which it changes.

    Chance is the host's, as in junyanz/pytorch-CycleGAN's ImagePool: no wait for the device.
    """
    if not size:
        return images
    shown = []
    for image in images.split(1):
        if len(pool) < size:
            pool.append(image.clone())
        elif random.random() > 0.5:
            place = random.randrange(size)
            # A copy, or the pool would keep whole batches alive.
            image, pool[place] = pool[place], image.clone()
        shown.append(image)
    return torch.cat(shown)


def gram(maps: Tensor) -> Tensor:
    """(b, C, h, w) -> (b, C, C), divided by C h w."""
    flat = maps.flatten(2)
    return flat @ flat.mT / flat[0].numel()


class Peer:
    """Two players, their optimizers, the average of G's weights, and synthetic data.

    Attributes:
      g, d: the players' modules; repeats: updates of D and of G in the last step.
    """

    inputs: tuple[tuple[str, str], ...] = (("a", "image"),)

    def __init__(self, config: Config, mode: Mode, g: nn.Module, d: nn.Module):
        self.config, self.method, self.mode, self.g, self.d = config, config.method, mode, g, d
        self.optimizers = {
            name: optimizer(config.optimizers[name], net) for name, net in (("g", g), ("d", d))
        }
        self.average = [w.detach().clone() for w in g.parameters()] if config.ema_half_life else []
        self.steps = 0
        if config.method.loss not in ADVERSARIAL:
            raise ValueError(f"no peer of the loss {config.method.loss!r}")
        self.adversarial = ADVERSARIAL[config.method.loss]
        shape, self.repeats = (IMAGES, config.method.size, config.method.size, 3), (1, 1)
        draws = torch.Generator().manual_seed(0)
        self.data: dict[str, dict[str, Tensor]] = {}
        for domain, name in self.inputs:
            drawn = torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)
            self.data.setdefault(domain, {})[name] = drawn.to(mode.device)

    def learn(self, player: str, loss: Tensor) -> Tensor:
        """One update of a player; returns the loss without its graph."""
        own = self.optimizers[player]
        own.zero_grad()
        loss.backward()
        own.step()
        return loss.detach()

    def batch(self) -> Batch:
        """Images (b, 3, S, S) in [-1, 1] of each domain; those of one domain are of one draw."""
        b, device, batch = self.config.batch_size, self.mode.device, {}
        for domain, held in self.data.items():
            rows = torch.randint(len(next(iter(held.values()))), (b,), device=device)
            coins = torch.rand(b, 1, 1, 1, device=device) < 0.5
            batch[domain] = {name: self.prepared(x[rows], coins) for name, x in held.items()}
        return batch

    def prepared(self, images: Tensor, coins: Tensor) -> Tensor:
        """uint8 (b, S, S, 3) -> (b, 3, S, S) in [-1, 1], mirrored where a coin says so."""
        x = images.permute(0, 3, 1, 2)
        if self.config.flip:
            x = torch.where(coins, x.flip(3), x)
        return x.to(torch.float32, memory_format=self.mode.layout).div_(127.5).sub_(1)

    def update(self, batch: Batch) -> Batch:
        """One update of D and one of G on a batch; returns losses, 'loss/NAME' -> ()."""
        raise NotImplementedError

    def learn_once(self) -> None:
        """What a step does before the average."""
        self.update(self.batch())

    def follow(self) -> None:
        """Moves the average of G's weights, where there is one."""
        if self.average:
            half_life, ramp = self.config.ema_half_life, self.config.ema_ramp
            if ramp:
                half_life = min(half_life, ramp * self.steps * self.config.batch_size)
            keep = 0.5 ** (self.config.batch_size / half_life) if half_life else 0.0
            get_ema_multi_avg_fn(keep)(self.average, list(self.g.parameters()), None)
        self.steps += 1

    def step(self) -> None:
        """One training step on drawn data."""
        self.learn_once()
        self.follow()
