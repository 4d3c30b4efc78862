"""One training step in PyTorch: the peers of our methods, for the benchmark.

The fakes of D's update are G's own where both see the same latents, D's weights have no
gradient in G's update, and nothing is read back but the accuracy that a dynamic schedule
follows. Learning rates stay those of the first step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anigan_jax.bench.torch import networks
from anigan_jax.bench.torch.base import Batch, Mode, Peer, exchange, gram, recolor, translate
from anigan_jax.config import Config
from anigan_jax.methods.cartoongan import CartoonGAN
from anigan_jax.methods.cyclegan import CycleGAN
from anigan_jax.methods.gan import GAN
from anigan_jax.methods.r3gan import R3GAN
from anigan_jax.methods.text_gan import TextGAN
from anigan_jax.perceptual.vgg import depth_of

TEXTS = 132
"""Texts of the synthetic data: as many as there are pairs of colors."""
MAX_DYNAMIC = 10
"""CSC412's rule gives at most this many repeats of a player."""


def peer_of(
    config: Config, channels_last: bool, amp: bool, compiled: bool, device: str, arrays=None
) -> Peer:
    """The peer of a config, with fresh weights and synthetic data on the device.

    Args:
      channels_last: maps lie in memory as ours do.
      amp: forward passes and losses under autocast to bfloat16.
      compiled: the networks' forward through torch.compile.
      arrays: weights of CartoonGAN's VGG; random ones where they are not given.

    Raises:
      ValueError: the method, or one of its settings, has no peer.
    """
    mode, method = Mode(channels_last, amp, compiled, device), config.method
    # As a good user would: TF32 as JAX has it, and the quickest convolutions.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    if isinstance(method, R3GAN):
        raise ValueError("no peer of R3GAN")
    if isinstance(method, TextGAN):
        return TextPeer(config, mode)
    if isinstance(method, GAN):
        return GANPeer(config, mode)
    if isinstance(method, CycleGAN):
        return CyclePeer(config, mode)
    if isinstance(method, CartoonGAN):
        return CartoonPeer(config, mode, arrays)
    raise ValueError(f"no peer of {type(method).__name__}")


def step_of(
    config: Config, channels_last: bool, amp: bool, compiled: bool, device: str
) -> Callable[[], None]:
    """A function that does one training step on synthetic data; see `peer_of`.

    It does not wait for the device, but for the accuracy that a dynamic schedule reads.
    """
    return peer_of(config, channels_last, amp, compiled, device).step


class GANPeer(Peer):
    """The peer of `gan.GAN`; a batch also has 'z' (b, Z, 1, 1)."""

    def __init__(self, config: Config, mode: Mode, text: int = 0):
        s = config.method
        if s.r1 or s.r2 or s.gradient_penalty or s.san or "cutout" in s.augment:
            raise ValueError("no peer of gradient penalties, SAN and DiffAugment's cutout")
        g = mode.place(networks.generator(s.generator, text))
        super().__init__(config, mode, g, mode.place(networks.discriminator(s.discriminator, text)))
        self.dynamic = s.schedule.kind.startswith("as_")
        self.correct, self.judged = 1, 2

    def update(self, batch: Batch) -> Batch:
        fake = self.make(batch)
        return {"loss/d": self.update_d(batch, fake), "loss/g": self.update_g(batch, fake)}

    def conditions(self) -> Batch:
        """What G makes images of."""
        z = self.method.generator.z_dim
        return {"z": torch.randn(self.config.batch_size, z, 1, 1, device=self.mode.device)}

    def make(self, batch: Batch) -> Tensor:
        """Images (b, 3, S, S) of the batch's latents, in G's own range."""
        with self.mode.autocast():
            return self.g(batch["z"], True)

    def judge(self, images: Tensor, texts: tuple = (), iterate: bool = False) -> tuple[Tensor, ...]:
        """D's logits (b,) of images, one for each text (one where there is none)."""
        if "color" in self.method.augment:
            images = recolor(images, torch.rand(3, len(images), device=images.device))
        if "translation" in self.method.augment:
            images = translate(images)
        out = self.d(images, texts, iterate) if texts else (self.d(images, iterate),)
        return tuple(x.flatten().float() for x in out)

    def reals(self, batch: Batch) -> Tensor:
        """The batch's images in G's range."""
        sigmoid = self.method.generator.output == "sigmoid"
        return (batch["a"]["image"] + 1) / 2 if sigmoid else batch["a"]["image"]

    def real_term(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """D's term () of real images, and their logits (b,)."""
        (logits,) = self.judge(self.reals(batch), iterate=True)
        return self.adversarial.real(logits, self.method.real_label), logits

    def fake_term(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's term () of generated images, and their logits (b,)."""
        (logits,) = self.judge(fake)
        return self.adversarial.fake(logits, self.method.fake_label), logits

    def g_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        """G's loss () of the images that it made of the batch."""
        (logits,) = self.judge(fake)
        return self.adversarial.g(logits)

    def update_d(self, batch: Batch, fake: Tensor) -> Tensor:
        """One update of D, or with `split_d` two; returns the loss, or the mean of both."""
        s = self.method
        self.d.requires_grad_(True)
        with self.mode.autocast():
            loss, real = self.real_term(batch)
        if s.split_d:
            loss = self.learn("d", s.d_scale * loss)
        with self.mode.autocast():
            term, made = self.fake_term(batch, fake.detach())
        if self.dynamic:
            self.correct, self.judged = (real > 0).sum() + (made < 0).sum(), 2 * len(real)
        if s.split_d:
            return (loss + self.learn("d", s.d_scale * term)) / 2
        return self.learn("d", s.d_scale * (loss + term))

    def update_g(self, batch: Batch, fake: Tensor) -> Tensor:
        """One update of G; `fake` has its graph. Returns the loss."""
        self.d.requires_grad_(False)
        with self.mode.autocast():
            loss = self.g_loss(batch, fake)
        return self.learn("g", loss)

    def counts(self) -> tuple[int, int]:
        """Updates of D and of G in this step."""
        s = self.method.schedule
        if s.kind == "fixed":
            return s.d, s.g
        if s.kind == "alternate":
            turn = self.steps % (s.d_steps + s.g_steps) < s.d_steps
            return (s.d, 0) if turn else (0, s.g)
        correct = int(self.correct)
        right = MAX_DYNAMIC * correct // self.judged
        wrong = MAX_DYNAMIC * (self.judged - correct) // self.judged
        if s.kind == "as_argued":
            right, wrong = wrong, right
        return max(right, 1), max(wrong, 3)

    def learn_once(self) -> None:
        of_d, of_g = self.repeats = self.counts()
        shared = self.method.shared_noise and not self.dynamic and of_g > 0
        batch = fake = kept = None
        for repeat in range(of_d):
            keeps = shared and repeat == 0
            # CSC412: one batch of fakes for all repeats of D, which see new reals.
            same = self.dynamic and repeat > 0
            batch = (batch if same else self.conditions()) | self.batch()
            if not same:
                with torch.set_grad_enabled(keeps):
                    fake = self.make(batch)
            kept = (batch, fake) if keeps else kept
            self.update_d(batch, fake)
        for repeat in range(of_g):
            if repeat or kept is None:
                batch = self.conditions()
                kept = batch, self.make(batch)
            self.update_g(*kept)


class TextPeer(GANPeer):
    """The peer of `text_gan.TextGAN`.

    A batch also has texts (b, T), 'right' and 'wrong', and with GAN-INT 'between'.
    """

    def __init__(self, config: Config, mode: Mode):
        length = config.method.encoder.length
        super().__init__(config, mode, length)
        self.table = torch.randn(TEXTS, length, device=mode.device)

    def conditions(self) -> Batch:
        b, device = self.config.batch_size, self.mode.device
        right, second = torch.randint(TEXTS, (2, b), device=device)
        other = (right + torch.randint(1, TEXTS, (b,), device=device)) % TEXTS
        own = self.table[right]
        texts = {"right": own, "wrong": self.table[other]}
        if self.method.int_weight:
            texts["between"] = torch.lerp(self.table[second], own, self.method.int_beta)
        return super().conditions() | texts

    def make(self, batch: Batch, text: str = "right") -> Tensor:
        with self.mode.autocast():
            # GAN-INT's second pass sees the kernels of the first.
            return self.g(batch["z"], (batch[text],), text == "right")[0]

    def real_term(self, batch: Batch) -> tuple[Tensor, Tensor]:
        s, texts = self.method, (batch["right"], batch["wrong"])
        right, wrong = self.judge(self.reals(batch), texts, iterate=True)
        term = s.wrong_weight * self.adversarial.fake(wrong, s.fake_label)
        return self.adversarial.real(right, s.real_label) + term, right

    def fake_term(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor]:
        (made,) = self.judge(fake, (batch["right"],))
        s = self.method
        return s.fake_weight * self.adversarial.fake(made, s.fake_label), made

    def g_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        s = self.method
        (logits,) = self.judge(fake, (batch["right"],))
        loss = self.adversarial.g(logits)
        if not s.int_weight:
            return loss
        (logits,) = self.judge(self.make(batch, "between"), (batch["between"],))
        return loss + s.int_weight * self.adversarial.g(logits)


class CyclePeer(Peer):
    """The peer of `cyclegan.CycleGame`."""

    inputs = (("a", "image"), ("b", "image"))

    def __init__(self, config: Config, mode: Mode):
        s = config.method

        def pair(make, settings, names) -> nn.ModuleDict:
            return nn.ModuleDict({name: mode.place(make(settings)) for name in names})

        g = pair(networks.generator, s.generator, ("ab", "ba"))
        super().__init__(config, mode, g, pair(networks.discriminator, s.discriminator, "ab"))
        self.pools: dict[str, list[Tensor]] = {"a": [], "b": []}

    def update(self, batch: Batch) -> Batch:
        real = {domain: batch[domain]["image"] for domain in "ab"}
        with self.mode.autocast():
            fakes = {"a": self.g["ba"](real["b"]), "b": self.g["ab"](real["a"])}
        self.d.requires_grad_(True)
        with self.mode.autocast():
            loss = sum(self.d_term(name, real[name], fakes[name].detach()) for name in "ab")
        found = {"loss/d": self.learn("d", loss)}
        self.d.requires_grad_(False)
        with self.mode.autocast():
            terms = self.g_terms("ab", real, fakes) | self.g_terms("ba", real, fakes)
            loss = sum(weight * term for weight, term in terms.values())
        found["loss/g"] = self.learn("g", loss)
        return found | {f"loss/{name}": term.detach() for name, (_, term) in terms.items()}

    def d_term(self, name: str, real: Tensor, fake: Tensor) -> Tensor:
        """A discriminator's loss ()."""
        shown = exchange(self.pools[name], fake, self.method.pool)
        logits = self.d[name](real).float(), self.d[name](shown).float()
        terms = self.adversarial.real(logits[0], 1.0), self.adversarial.fake(logits[1], 0.0)
        return self.method.d_scale * sum(terms)

    def g_terms(self, way: str, real: Batch, fakes: Batch) -> dict[str, tuple[float, Tensor]]:
        """Name -> (weight, term ()) of the generator that leads `way`, and of the way back."""
        s, (name, other) = self.method, way
        back = self.g[other + name]
        logits = self.d[other](fakes[other]).float()
        terms = {
            f"gan_{way}": (s.adversarial, self.adversarial.g(logits)),
            f"cycle_{name}": (s.cycle, F.l1_loss(back(fakes[other]), real[name])),
        }
        if s.identity:
            same = F.l1_loss(back(real[name]), real[name])
            terms[f"identity_{name}"] = s.identity, same
        return terms


class CartoonPeer(Peer):
    """The peer of `cartoongan.CartoonGame` in its phase 'train'."""

    def __init__(self, config: Config, mode: Mode, arrays=None):
        s = config.method
        if s.landmark or s.grayscale or s.color or s.total_variation:
            raise ValueError("no peer of CartoonGAN's terms beside content and style")
        self.inputs = (*CyclePeer.inputs, *((("b", "edges"),) if s.edge else ()))
        g = mode.place(networks.generator(s.generator))
        super().__init__(config, mode, g, mode.place(networks.discriminator(s.discriminator)))
        f = s.features
        self.maps = None
        if s.content or s.style:
            vgg = networks.VGG(depth_of(f.network), f.layer, f.convention, arrays)
            self.maps = mode.place(vgg)

    def update(self, batch: Batch) -> Batch:
        with self.mode.autocast():
            made = self.g(batch["a"]["image"])
        self.d.requires_grad_(True)
        with self.mode.autocast():
            loss = self.d_loss(batch, made.detach())
        found = {"loss/d": self.learn("d", loss)}
        self.d.requires_grad_(False)
        with self.mode.autocast():
            terms = self.g_terms(batch, made)
            loss = sum(weight * term for weight, term in terms.values())
        found["loss/g"] = self.learn("g", loss)
        return found | {f"loss/{name}": term.detach() for name, (_, term) in terms.items()}

    def d_loss(self, batch: Batch, made: Tensor) -> Tensor:
        """D's loss (): cartoons are real, G's images and smoothed cartoons are fakes."""
        real, fake = self.d(batch["b"]["image"]).float(), self.d(made).float()
        loss = self.adversarial.real(real, 1.0) + self.adversarial.fake(fake, 0.0)
        if self.method.edge:
            smooth = self.d(batch["b"]["edges"]).float()
            loss = loss + self.method.edge * self.adversarial.fake(smooth, 0.0)
        return loss

    def g_terms(self, batch: Batch, made: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Name -> (weight, term ())."""
        s = self.method
        logits = self.d(made).float()
        terms = {"gan": (s.adversarial, self.adversarial.g(logits))}
        if s.content or s.style:
            maps = self.maps(made)
        if s.content:
            with torch.no_grad():
                wanted = self.maps(batch["a"]["image"])
            terms["content"] = s.content, F.l1_loss(maps, wanted)
        if s.style:
            with torch.no_grad():
                wanted = gram(self.maps(batch["b"]["image"]))
            terms["style"] = s.style, F.l1_loss(gram(maps), wanted)
        return terms
