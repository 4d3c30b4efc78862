"""Images per second of the reference DCGAN's whole step: ours, lax, PyTorch."""

from __future__ import annotations

import contextlib
import statistics
import time

import jax
import numpy as np

from anigan_jax import train_step
from anigan_jax.config import Config
from anigan_jax.data.sources import PaintedFaces
from anigan_jax.methods.gan import GAN
from anigan_jax.networks import conv
from anigan_jax.networks.specs import Discriminator, Generator

STEPS = 4
# One step a dispatch: XLA's CPU backend treats its own convolutions worse in a loop.
LAX_STEPS = 1


def measure(batch: int, base: int, windows: int, peer: bool) -> list[dict]:
    """Alternating windows of a few steps each; medians of images per second."""
    runners = {"ours": ours(batch, base), "lax.conv_transpose": ours(batch, base, lax=True)}
    if peer:
        runners["torch"] = pytorch(batch, base, channels_last=False)
        runners["torch channels-last"] = pytorch(batch, base, channels_last=True)
    for run in runners.values():
        run()
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(windows):
        for name, run in runners.items():
            start = time.perf_counter()
            run()
            steps = LAX_STEPS if name.startswith("lax") else STEPS
            speeds[name].append(steps * batch / (time.perf_counter() - start))
    mine = statistics.median(speeds["ours"])
    return [
        {
            "side": name,
            "images_per_sec": round(statistics.median(values), 2),
            "ours_is": round(mine / statistics.median(values), 3),
        }
        for name, values in speeds.items()
    ]


def as_text(rows: list[dict]) -> str:
    """The table as a person reads it."""
    head = f"{'side':22}{'images/s':>10}{'ours is':>10}"
    lines = [f"{row['side']:22}{row['images_per_sec']:>10}{row['ours_is']:>9}x" for row in rows]
    return "\n".join([head, *lines])


def ours(batch: int, base: int, lax: bool = False):
    """A function that runs STEPS steps; `lax` swaps in XLA's own transposed convolution."""
    method = GAN(generator=Generator(base=base), discriminator=Discriminator(base=base))
    config = Config("bench", method, PaintedFaces(), batch_size=batch)
    made = method.make(None)
    (phase,) = made.phases
    length = LAX_STEPS if lax else STEPS
    step = train_step.make_super_step(config, made, phase, length, None)
    step = jax.jit(step, donate_argnums=(0,))
    images = np.random.default_rng(0).integers(0, 256, (512, 64, 64, 3), np.uint8)
    images = {"images": jax.numpy.asarray(images)}
    local = {"device": jax.numpy.int32(0)}
    state = jax.jit(lambda: train_step.init_state(config, made, {}))()
    with _reference_convolutions() if lax else contextlib.nullcontext():
        compiled = step.lower(state, images, local).compile()

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, images, local)
        jax.block_until_ready(metrics)

    return run


@contextlib.contextmanager
def _reference_convolutions():
    """XLA's own transposed convolution in place of ours, while a step is traced."""
    fast, conv.conv_transpose = conv.conv_transpose, conv.conv_transpose_reference
    try:
        yield
    finally:
        conv.conv_transpose = fast


def pytorch(batch: int, base: int, channels_last: bool):
    """The same model, optimiser and order of updates in PyTorch, eager."""
    import torch
    from torch import nn

    layout = torch.channels_last if channels_last else torch.contiguous_format
    n = base

    def up(a, b, s, p):
        return [nn.ConvTranspose2d(a, b, 4, s, p, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]

    def down(a, b):
        return [
            nn.Conv2d(a, b, 4, 2, 1, bias=False),
            nn.BatchNorm2d(b),
            nn.LeakyReLU(0.2, True),
        ]

    g = nn.Sequential(
        *up(100, 8 * n, 1, 0),
        *up(8 * n, 4 * n, 2, 1),
        *up(4 * n, 2 * n, 2, 1),
        *up(2 * n, n, 2, 1),
        nn.ConvTranspose2d(n, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    ).to(memory_format=layout)
    d = nn.Sequential(
        nn.Conv2d(3, n, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, True),
        *down(n, 2 * n),
        *down(2 * n, 4 * n),
        *down(4 * n, 8 * n),
        nn.Conv2d(8 * n, 1, 4, 1, 0, bias=False),
    ).to(memory_format=layout)
    opt_g = torch.optim.Adam(g.parameters(), 2e-4, (0.5, 0.999))
    opt_d = torch.optim.Adam(d.parameters(), 2e-4, (0.5, 0.999))
    bce = nn.BCEWithLogitsLoss()
    real = (torch.rand(batch, 3, 64, 64) * 2 - 1).to(memory_format=layout)

    def run() -> None:
        for _ in range(STEPS):
            d.zero_grad()
            logits = d(real).view(-1)
            bce(logits, torch.ones_like(logits)).backward()
            fake = g(torch.randn(batch, 100, 1, 1))
            logits = d(fake.detach()).view(-1)
            bce(logits, torch.zeros_like(logits)).backward()
            opt_d.step()
            g.zero_grad()
            logits = d(fake).view(-1)
            loss = bce(logits, torch.ones_like(logits))
            loss.backward()
            opt_g.step()
            loss.item()

    return run
