"""Floating-point operations of a training step, counted from the layers.

A multiplication and its addition are two. Taps on padding count, zeros that a lowering
inserts do not; norms, activations and optimizers are left out. What both updates of a step
need, the generated images where they share their latents, counts once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from anigan_jax.config import Config
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.r3gan import R3GAN
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.networks import describe
from anigan_jax.perceptual.vgg import WIDTHS, depth_of, needed


class Passes(NamedTuple):
    """Costs of a network for one image, in FLOPs.

    Attributes:
      forward: of a forward pass; the gradient of the weights, and that of the inputs, cost
        as much each.
      first: of the first layer, whose input needs no gradient when weights are trained.
      trunk: of the layers before a text joins.
    """

    forward: float
    first: float
    trunk: float

    @property
    def trained(self) -> float:
        """Forward, and the gradients of the weights alone."""
        return 3 * self.forward - self.first

    @property
    def inward(self) -> float:
        """Forward, and the gradient of the input alone."""
        return 2 * self.forward


def passes(config: Config) -> dict[str, Passes]:
    """Costs of a config's networks by name."""
    found = {}
    for name, (net, shapes) in config.method.networks().items():
        layers = [row for row in describe.network(net, shapes)["layers"] if row["flops"]]
        rows = [row["flops"] for row in layers]
        trunk = getattr(net, "trunk", len(rows))
        # What reads the input itself: where norms follow it, another layer too.
        told = {block.name for block in getattr(net, "told", ())}
        first = sum(rows[: 1 + sum(row["layer"] in told for row in layers)])
        found[name] = Passes(sum(rows), first, sum(rows[:trunk]))
    return found


def per_image(config: Config, repeats: dict[str, float] | None = None) -> float:
    """FLOPs of a step of the last phase, divided by the batch.

    Args:
      repeats: measured updates of 'd' and 'g' in a step, where the schedule varies.

    Returns:
      NaN for a family whose networks are no stacks of blocks.
    """
    method, nets = config.method, passes(config)
    if isinstance(method, R3GAN):
        return _r3gan(method, nets["generator"], nets["discriminator"], repeats or {})
    if isinstance(method, GAN):
        # The pass of the averaged weights, for their statistics.
        own = nets["generator"].forward if config.ema_half_life else 0
        return own + _gan(method, nets["generator"], nets["discriminator"], repeats or {})
    if isinstance(method, CycleGAN):
        return _cyclegan(method, nets["generator"], nets["discriminator"])
    if isinstance(method, CartoonGAN):
        return _cartoongan(method, nets["generator"], nets["discriminator"])
    if len(nets) == 1:
        (net,) = nets.values()
        return net.trained
    return math.nan


def _gan(method: GAN, g: Passes, d: Passes, repeats: dict[str, float]) -> float:
    schedule = method.schedule
    # An alternating schedule does one or the other in a step.
    share_d = share_g = 1.0
    if schedule.kind == "alternate":
        period = schedule.d_steps + schedule.g_steps
        share_d, share_g = schedule.d_steps / period, schedule.g_steps / period
    each_d = repeats.get("d", schedule.d * share_d)
    each_g = repeats.get("g", schedule.g * share_g)
    text = isinstance(method, TextGAN)
    # Real images meet two texts behind one trunk.
    pairs = 3 * (2 * d.forward - d.trunk) - d.first if text else d.trained
    d_update = pairs + d.trained
    between = bool(text and method.int_weight)
    g_update = (1 + between) * (g.trained + d.inward)
    shared = method.shared_noise and each_d == each_g == 1
    fakes = 0 if shared else g.forward * min(each_d, 1)
    return each_d * d_update + fakes + each_g * g_update


def _r3gan(method: R3GAN, g: Passes, d: Passes, repeats: dict[str, float]) -> float:
    each_d = repeats.get("d", method.schedule.d)
    each_g = repeats.get("g", method.schedule.g)
    # A gradient of gradients: the pass and the images' gradient, and twice both again.
    share = (1 if method.r1 or method.r2 else 0) / method.penalty_every
    judged = share * 6 * d.forward + (1 - share) * d.trained
    seen = d.inward + (d.forward if method.adversarial.pairs else 0)
    return each_d * (g.forward + 2 * judged) + each_g * (g.trained + seen)


def _cyclegan(method: CycleGAN, g: Passes, d: Passes) -> float:
    """Of a pair of images, one of each domain."""
    # Both ways, back again, and both identities; the way back also needs its input's gradient.
    d_update = 4 * d.trained
    passes_g = 2 * g.trained + 2 * 3 * g.forward + (2 * g.trained if method.identity else 0)
    return d_update + passes_g + 2 * d.inward


def _cartoongan(method: CartoonGAN, g: Passes, d: Passes) -> float:
    """Of a photo and a cartoon, in the phase of both players."""
    d_update = (3 if method.edge else 2) * d.trained
    seen = 0.0
    if method.content or method.style:
        vgg = vgg_flops(method.features.network, method.features.layer, method.size)
        seen = vgg * (2 + bool(method.content) + bool(method.style))
    return d_update + g.trained + d.inward + seen


def vgg_flops(network: str, layer: str, side: int) -> float:
    """FLOPs of a VGG's forward pass up to a map, of one image."""
    total, cin = 0, 3
    for name in needed(depth_of(network), (layer,)):
        block = int(name[4])
        width = WIDTHS[block - 1]
        total += 2 * 9 * cin * width * (side >> (block - 1)) ** 2
        cin = width
    return total
