"""What the families that translate images share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from anigan_jax import losses, rng
from anigan_jax.config import ComputeType, MethodSettings
from anigan_jax.core import Array, Batch, Keys, Method, Phase, TrainState, generator_of
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import signed
from anigan_jax.methods.players import call, split_variables
from anigan_jax.networks.resnet import check_side
from anigan_jax.networks.stack import RESIDUAL
from anigan_jax.runtime.batching import in_batches


@dataclass(frozen=True)
class Translation(MethodSettings):
    """Base of the families that translate images of domain A to domain B."""

    dtype: ComputeType = "float32"
    """bfloat16: products of the networks in 16 bits, for GPUs and TPUs; parameters, statistics,
    losses and optimizers stay float32."""
    remat: bool = False
    """Recompute the insides of G's residual blocks in the backward pass: less memory, more time;
    for large images."""

    @property
    def size(self) -> int:
        return self.generator.size

    def terms(self, batch: Batch, made: dict[str, Array]) -> dict[str, tuple[float, Array]]:
        """More terms of G's loss, for a family of the user's own: name -> (weight, term).

        Args:
          batch: 'a' and 'b', each with 'image' (b, S, S, 3) in [-1, 1].
          made: domain -> what G made for it, (b, S, S, 3): 'b' of the photos; of a CycleGAN 'a'
            of the other images, too.

        Returns:
          Terms () or (b,), logged as 'loss/NAME' without their weights.
        """
        return {}

    @property
    def next_verbs(self) -> tuple[tuple[str, str], ...]:
        return (("translate RUN PHOTO", "photos in the other domain"),)

    def inputs(self, pack, part: str = "train"):
        """The images of domain B."""
        return {"b": {"image": domain_b(pack, part)}}

    def networks(self) -> dict[str, tuple[nn.Module, tuple]]:
        """Name -> (module, shapes of its inputs for one image)."""
        image = ((1, self.size, self.size, 3),)
        modules = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: (settings.build(), image) for name, settings in modules.items()}

    def check(self) -> None:
        """Refuses networks whose sizes are wrong, and losses of pairs."""
        if losses.ADVERSARIAL[self.loss].pairs:
            raise UserError(f"method.loss {self.loss!r} compares pairs; maps of logits have none")
        self.generator.check("method.generator")
        check_side(self.size, self.generator.multiple_of, "method.generator.size")
        self.discriminator.check("method.discriminator")
        if self.generator.size != self.discriminator.size:
            raise UserError(
                f"method.generator.size {self.generator.size} differs from "
                f"method.discriminator.size {self.discriminator.size}"
            )


def domain_b(pack, part: str, what: str = "pixels"):
    """Rows of domain B; a pack of one domain is refused with what to do."""
    if f"{part}B" not in pack.manifest["parts"]:
        raise UserError(
            f"{pack.shown} has one domain, and translation needs two: give --data.path A "
            "--data.path-b B, a folder with trainA and trainB, or a pack of two domains"
        )
    return pack.part(f"{part}B", what)


# Pictures of a preview, whose grid is 6x6.
SHOWN = 36
# Images at a time in evaluation: at 256 px one activation map of 32 takes 0.5 GB.
BATCH = 32


class Network:
    """A module with its mutable collections; holds no arrays.

    With `remat` its backward pass computes the insides of residual blocks again, and keeps
    their sums alone.
    """

    def __init__(self, module: nn.Module, side: int, remat: bool = False):
        self.module, self.side, self.remat = module, side, remat

    def __call__(
        self,
        params,
        stats,
        images: Array,
        keys: Keys | None = None,
        salt: int = 0,
        *,
        iterate: bool = False,
        train: bool = True,
    ):
        """Output of images (b, S, S, 3), and the new stats.

        Args:
          keys, salt: of the update, and what tells its passes apart; for dropout.
          iterate: whether spectral norm advances: in one of an update's passes.
        """
        own = None if keys is None else rng.children(keys.example, salt)

        def apply(params, stats, images, own):
            variables, told = {"params": params, **stats}, {} if own is None else {"keys": own}
            rest = {"train": train, "power_iterate": iterate, "mutable": list(stats), **told}
            return call(self.module, "apply", variables, images, **rest)

        if self.remat:
            keep = jax.checkpoint_policies.save_only_these_names(RESIDUAL)
            apply = jax.checkpoint(apply, policy=keep)
        return apply(params, stats, images, own)


def init_all(networks: dict[str, Network], key: Array) -> tuple[dict, dict]:
    """Networks of one player by name -> (params, stats) by name."""
    variables = {}
    for i, (name, network) in enumerate(networks.items()):
        images = jnp.zeros((1, network.side, network.side, 3))
        # Evaluation mode: training mode would need the mapped axis.
        own = jax.random.fold_in(key, i)
        variables[name] = call(network.module, "init", own, images, train=False)
    return split_variables(variables)


def judge(loss: str, real: Array, fake: Array) -> tuple[Array, dict[str, Array]]:
    """D's loss on maps of logits (b, h, w, 1) of reals and fakes, and what it thinks of them."""
    real, fake = real.reshape(-1), fake.reshape(-1)
    terms = losses.ADVERSARIAL[loss].d(real, fake)
    total = sum(jnp.mean(term) for term in terms)
    return total, opinion(loss, real, fake)


def opinion(loss: str, real: Array, fake: Array) -> dict[str, Array]:
    """Mean scores and accuracy of logits: sigmoids, or for least squares the values."""
    game = losses.ADVERSARIAL[loss]
    right = jnp.mean(real > game.sides) + jnp.mean(fake < game.sides)
    return {
        "score/real": jnp.mean(game.score(real)),
        "score/fake": jnp.mean(game.score(fake)),
        "accuracy/d": right / 2,
    }


def fooled(loss: str, fake: Array) -> Array:
    """() G's adversarial loss of D's map of logits of fakes."""
    fake = fake.reshape(-1)
    return jnp.mean(losses.ADVERSARIAL[loss].g(fake, jnp.zeros_like(fake)))


def weighted_sum(terms: dict[str, tuple[float, Array]]) -> tuple[Array, dict[str, Array]]:
    """Name -> (weight, term () or (b,)): their weighted sum, and 'loss/NAME' -> () unweighted."""
    means = {name: jnp.mean(term) for name, (_, term) in terms.items()}
    total = sum(weight * means[name] for name, (weight, _) in terms.items())
    return total, {f"loss/{name}": mean for name, mean in means.items()}


def method_of(init: Callable, phases: tuple[Phase, ...], translate: dict[str, Callable]) -> Method:
    """The Method of a family that translates images and generates none."""
    return Method(
        init=init,
        phases=phases,
        preview=lambda state, constants, keys, data: preview(translate, state, data),
        generate=None,
        z_dim=0,
        evaluate=evaluator(translate),
        translate=translate,
    )


def preview(translate: dict[str, Callable], state: TrainState, data: dict) -> dict:
    """Images of A, what they become in B, and back in A where there is a way; same from B.

    Returns:
      direction -> (n, 2 or 3, S, S, 3).
    """
    params, stats = generator_of(state)
    panels = {}
    for direction, change in translate.items():
        back = translate.get(direction[::-1])
        images = signed(data[direction[0]]["image"][: SHOWN // (3 if back else 2)])
        columns = [images, change(params, stats, images)]
        if back:
            columns.append(back(params, stats, columns[-1]))
        panels["_to_".join(direction)] = jnp.stack(columns, axis=1)
    return panels


def evaluator(translate: dict[str, Callable]) -> Callable[..., dict[str, float]]:
    """`Method.evaluate`: L1 distances on held-out images.

    'cycle/a' is |F(G(a)) - a|, 'identity/a' |F(a) - a| and 'change/a' |G(a) - a|, where G
    leads to B and F back; over values in [-1, 1], means over all images; the same of B.
    What there is no way for is left out.
    """

    def distances(direction: str, params, stats, images: Array) -> dict[str, Array]:
        change, back = translate[direction], translate.get(direction[::-1])
        x, here = signed(images), direction[0]
        there = change(params, stats, x)
        found = {f"change/{here}": losses.l1(there, x)}
        if back:
            found[f"cycle/{here}"] = losses.l1(back(params, stats, there), x)
            found[f"identity/{here}"] = losses.l1(back(params, stats, x), x)
        return found

    compiled = jax.jit(distances, static_argnums=0)

    def evaluate(state: TrainState, constants: dict, data: dict) -> dict[str, float]:
        params, stats = generator_of(state)
        found = {}
        for direction in translate:
            rows = data[direction[0]]["image"]
            run = functools.partial(compiled, direction, params, stats)
            for name, values in in_batches(run, rows, BATCH).items():
                found[name] = float(np.mean(values, dtype=np.float64))
        return found

    return evaluate
