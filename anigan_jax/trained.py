"""A trained run, opened: what it draws, and what its networks are."""

from __future__ import annotations

import dataclasses
import glob
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from anigan_jax.config import Config
from anigan_jax.core import PyTree, generator_of
from anigan_jax.data import dataset, scratch
from anigan_jax.data.dataset import Pack
from anigan_jax.errors import UserError
from anigan_jax.networks.resnet import check_side
from anigan_jax.opened import Opened, write_weights
from anigan_jax.runtime import environment
from anigan_jax.sampling import grids, photos, prompts
from anigan_jax.sampling import seeds as by_seed
from anigan_jax.sampling.grids import Model
from anigan_jax.state import abstract_state
from anigan_jax.storage import atomic, run_dir
from anigan_jax.storage import checkpoint as checkpoints


class Trained(Opened):
    """A trained run, opened without its data; equal to itself alone, and not pickled.

    Attributes:
      path: the run directory, or the file of weights.
      config: the settings it was trained with.
      networks: of the checkpoint, with all weights.
      recorded: run.json; {} where there is none.
      weights: of G, what is drawn with: 'raw' or 'ema'; None: averaged where the run averages.
      notes: what a file of weights says of the data that they come from.
    """

    # Not by its arrays, as tuples are.
    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def generate(
        self,
        n: int | None = None,
        seed: int = 0,
        prompt: str | Sequence[str] | None = None,
        *,
        seeds: Iterable[int] | None = None,
        latents: np.ndarray | None = None,
        truncation: float | None = None,
        weights: str | None = None,
    ) -> np.ndarray:
        """`n` new images, or one of each seed, (n, H, W, 3) uint8.

        Neither the first of n nor that of a seed depends on what is made with them: that of seed
        s is `generate(1, seed=s)`.

        Args:
          seed: of the latents, and of what a prompt leaves open.
          prompt: 'blue hair red eyes', for a run that learned from texts, or a list with one
            for each image (`n` is then left out), whose latents are those that `n`, `seeds` or
            `latents` would give; None: as often as its data has each.
          seeds: instead of `n` and `seed`; each 0 to 2**32 - 1.
          latents: (n, Z) instead of `n` and `seeds`, standard normal in training; `latents(seeds)`
            gives those of seeds. `seed` is then of the texts, or of what a prompt leaves open.
          truncation: cuts the normal distribution of the latents off at +-truncation; lower is
            more typical and less varied; None: as trained.
          weights: 'raw' or 'ema'; None: those that the run was loaded with.

        Raises:
          UserError: the run generates nothing, lacks these weights, does not understand the
            prompt, or a number is out of range.
        """
        (seed,) = by_seed.checked([seed], "seed")
        if not isinstance(truncation, Real | None):
            raise UserError(f"truncation is {truncation!r}; it must be a number")
        model = grids.with_drawing(self._drawing(weights), grids.Drawing(truncation))
        if isinstance(prompt, list | tuple):
            z = self._latents_of(len(prompt), n, seed, seeds, latents)
            return grids.generated(model, z, self.texts(prompt, seed))
        if not isinstance(prompt, str | None):
            raise UserError(f"prompt is {prompt!r}; it must be a text or a list of texts")
        wanted = None if prompt is None else prompts.read(model, [prompt], "prompt")
        if seeds is not None:
            if n is not None or seed or latents is not None:
                raise UserError("seeds choose the images; leave out n, seed and latents")
            return by_seed.made(model, by_seed.checked(seeds), wanted[0] if wanted else None)
        if latents is not None:
            if n is not None:
                raise UserError("latents say how many images; leave out n")
            z = self._checked(latents)
            texts = prompts.texts_for(model, wanted[0] if wanted else None, len(z), seed)
            return grids.generated(model, z, texts)
        if n is None:
            raise UserError("give n (how many images), seeds or latents")
        n = by_seed.whole(n, "n")
        if n < 1:
            raise UserError(f"n is {n}; it must be at least 1")
        if wanted is not None:
            images, _ = prompts.ask(model, wanted, n, seed)
            return images[0]
        texts = prompts.texts_of_data(model, n, seed)
        return grids.generated(model, grids.latents(self.method, n, seed), texts)

    def latents(self, seeds: Iterable[int]) -> np.ndarray:
        """(n, Z) float32 latents of seeds: `generate(latents=...)` draws what `seeds` would.

        Of a run that reads texts, those are `generate`'s own, of its `seed`.

        Raises:
          UserError: the run generates nothing from noise, or a seed is out of range.
        """
        return grids.latents_of(self.method, by_seed.checked(seeds))

    def texts(self, wanted: Sequence[str], seed: int = 0) -> np.ndarray:
        """(n, T) float32: what the generator is told by n prompts.

        What a prompt leaves open is drawn by the seed as the data has it, as for one image of
        `generate`.

        Raises:
          UserError: the run reads no texts, or does not understand a prompt.
        """
        if isinstance(wanted, str):
            raise UserError(f"texts must be a list of prompts, such as [{wanted!r}]")
        (seed,) = by_seed.checked([seed], "seed")
        model = self.networks
        # Each by itself: of lines, empty ones and remarks are passed over.
        asked = [one for text in wanted for one in prompts.read(model, [str(text)], "prompt")]
        return np.stack([prompts.one_text(model, [one], seed) for one in asked])

    def generator(
        self, direction: str | None = None, *, weights: str | None = None
    ) -> tuple[Callable, PyTree]:
        """G as a pure function, for code of one's own, and the weights that it draws with.

        `apply, own = run.generator()`; then `apply(own, z)` takes (n, Z) latents, of a run that
        reads texts `apply(own, z, text)` those of `texts`, (n, T), too, and with a direction
        `apply(own, images)` takes (n, H, W, 3) in [-1, 1]. Each gives (n, H, W, C) in [-1, 1],
        float32, and can be jitted, mapped and differentiated.

        Args:
          direction: 'ab' or 'ba', of a run that translates.
          weights: as for `generate`; with their own statistics.

        Raises:
          UserError: the run has no such generator, or lacks these weights.
        """
        if direction is None:
            grids.need_noise(self.method)
            function = self.method.generate
        else:
            photos.need_direction(self.method, direction)
            function = (self.method.translate or {})[direction]
        params, stats = generator_of(self._drawing(weights).state)

        def apply(weights: PyTree, *inputs: Array) -> Array:
            return function(*weights, *inputs)

        return apply, (params, stats)

    def with_generator(self, weights: PyTree) -> Trained:
        """The same with other weights of G, of the kind that `generator` gives, and no D.

        Raises:
          UserError: they are not of the run's shapes.
        """
        params, stats = weights
        own = generator_of(self.networks.state)
        shapes = [jax.tree.map(jnp.shape, each) for each in ((params, stats), own)]
        if shapes[0] != shapes[1]:
            raise UserError("these are not weights of this run's generator: shapes or names differ")
        made = grids.with_generator(self.networks, params, stats)
        # What was measured of the run's own is not of these.
        return self._replace(networks=made._replace(tag="_own"), weights=None)

    def save(self, folder: str | Path) -> Path:
        """Writes its networks as weights, a folder that `load` and the verbs take in its place.

        Raises:
          UserError: the folder is not empty.
        """
        folder = environment.expanded(folder)
        atomic.refuse_taken(folder, "folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(self, self.networks, folder)
        return folder

    def export(
        self, to: str, folder: str | Path, *, data_license: str = "", opset: int = 17
    ) -> dict[str, str]:
        """Writes its generators for other programs, as `anigan export`: whole, or not at all.

        Args:
          to: 'onnx', 'stablehlo', 'weights' or 'hub'.
          folder: a new or an empty one.
          data_license: of the training images, kept in every file of weights; '': as known.
          opset: of ONNX.

        Returns:
          Names of the files, and what is known about each.

        Raises:
          UserError: the run has no generator, or none of that form; the folder is taken, cannot
            be written, or a package is missing.
        """
        # Here: who draws needs none of it.
        from anigan_jax.export import files

        files.check(to, by_seed.whole(opset, "opset"))
        folder = environment.expanded(folder)
        atomic.refuse_taken(folder, "folder")
        with atomic.new_folder(folder) as made:
            return files.write(self, to, made, opset, data_license)

    def evaluate(
        self,
        n: int | None = None,
        judges: Sequence[Any] = ("vgg16",),
        seed: int = 0,
        data: str | Path = "",
    ) -> dict[str, Any]:
        """The panel of `anigan evaluate`, beside real held-out images; needs the run's data.

        Args:
          n: generated images; None: 10,000. Of a translation: leave it out.
          judges: 'vgg16', 'inception', 'random', runs of classifiers, or a network of one's own:
            `anigan_jax.evaluation.features.Network`.
          seed: of latents and subsets.
          data: where the run's images are now, if they were moved.

        Returns:
          What `anigan evaluate --json` prints, but for LPIPS: 'sets' -> 'generated' -> 'scores' ->
          'kid-vgg16' -> {'generated', 'like_floor', 'floor'}, and the protocol.

        Raises:
          UserError: the data or a judge's weights are not there.
        """
        # Here: who draws needs none of it.
        from anigan_jax.evaluation import checkpoint_quality, features, prompt_accuracy
        from anigan_jax.training.input import rows

        if isinstance(judges, str) or not (judges or self.method.translate):
            raise UserError(f"judges is {judges!r}; it must be a list, such as ['vgg16']")
        if n is not None and by_seed.whole(n, "n") < 2:
            raise UserError(f"n is {n}; it must be at least 2")
        (seed,) = by_seed.checked([seed])
        pack = self.data_pack(str(data))
        if self.data_sha256 not in ("", None, pack.manifest["sha256"]):
            warnings.warn("these are not the images that the run was trained on", stacklevel=2)
        networks = features.on_backgrounds(features.several(judges), self.config.method.channels)
        wanted = checkpoint_quality.Wanted(n, seed, networks, None)
        data = rows(self.config, pack, "test") if self.method.translate else {}
        found, _ = checkpoint_quality.measure(self.model, self.config, pack, data, wanted)
        return prompt_accuracy.as_json(found)

    def data_pack(self, data: str = "") -> Pack:
        """The packed images of the run, or those at another place.

        Raises:
          UserError: they are not there, or have two domains where the run knows one.
        """
        pack = dataset.build(with_data(self.config, data).data, scratch.default_cache())
        if "trainA" in pack.manifest["parts"] and not self.method.translate:
            raise UserError("these images have two domains; give those that the run was trained on")
        return pack

    def translate(
        self, images: np.ndarray, direction: str = "ab", *, weights: str | None = None
    ) -> np.ndarray:
        """Images in the other domain, (n, S, S, 3) uint8; S need not be that of the training.

        Args:
          images: (n, S, S, 3) uint8, RGB; S is a multiple of 2 to the number of the generator's
            halvings, of 4 say, and at least twice that.
          direction: 'ab', or 'ba' where the run has learned the way back.
          weights: as for `generate`.

        Raises:
          UserError: the run translates nothing or not in this direction, lacks these weights, or
            `images` are not of that shape.
        """
        try:
            images = np.asarray(images)
        except ValueError:
            raise UserError("images have several sizes; give images of one size") from None
        n, height, width, channels = images.shape if images.ndim == 4 else (0, 0, 0, 0)
        if images.dtype != np.uint8 or channels != 3 or height != width or not n * height:
            raise UserError(
                f"images are {images.dtype} {images.shape}; they must be uint8 (n, S, S, 3), with "
                "n and S at least 1"
            )
        photos.need_direction(self.method, direction)
        method: Any = self.config.method
        check_side(height, method.generator.multiple_of, "the side of images")
        return photos.translated(self._drawing(weights), direction, images)

    def at(self, checkpoint: str | int) -> Trained:
        """The same run at another checkpoint: 'best', 'latest' or a step."""
        return self._replace(networks=model_at(self.path, self.config, self.recorded, checkpoint))

    def _latents_of(self, count: int, n, seed: int, seeds, latents) -> np.ndarray:
        """(count, Z): those that `generate` draws of its arguments, one for each prompt."""
        if not count:
            raise UserError("prompt has 0 texts; give one per image")
        if sum(given is not None for given in (n, seeds, latents)) > 1:
            raise UserError("give at most one of n, seeds and latents")
        if latents is not None:
            z = self._checked(latents)
        elif seeds is not None:
            z = self.latents(seeds)
        else:
            grids.need_noise(self.method)
            z = grids.latents(self.method, count, *by_seed.checked([seed], "seed"))
        images = len(z) if n is None else by_seed.whole(n, "n")
        if images != count:
            raise UserError(f"prompt has {count} texts for {images} images; give one per image")
        return z

    def _checked(self, latents: np.ndarray) -> np.ndarray:
        grids.need_noise(self.method)
        try:
            z = np.asarray(latents, np.float32)
        except (TypeError, ValueError):
            raise UserError("latents are not an array of numbers") from None
        side = self.method.z_dim
        if z.ndim != 2 or z.shape[1] != side or not len(z) or not np.isfinite(z).all():
            raise UserError(f"latents are {z.shape}; they must be finite, of shape (n, {side})")
        return z


def with_data(config: Config, path: str) -> Config:
    """The config with its images at another place; `path` '' leaves it as it is.

    Raises:
      UserError: they are drawn; or they are not there, and no path is given.
    """
    source: Any = config.data
    now = getattr(source, "path", "")
    if path and source.drawn:
        raise UserError("this run draws its own images; --data is for other runs")
    if path:
        # All of them are there: a folder with trainA and trainB where they were two sources.
        gone = {name: "" for name in ("path_b",) if hasattr(source, name)}
        gone |= {name: () for name in ("also",) if hasattr(source, name)}
        moved = dataclasses.replace(source, path=path, **gone)
        return dataclasses.replace(config, data=moved)
    # Patterns and what tensorflow-datasets prepared are looked for where they are read.
    named = source.drawn or glob.has_magic(now) or now.startswith("tfds:")
    if not named and not (now and Path(now).expanduser().exists()):
        where = f"at {now!r}, where there is nothing now" if now else "at an unrecorded place"
        raise UserError(f"the images of this run were {where}; say where they are: --data DATA")
    return config


def model_at(path: Path, config: Config, recorded: dict, checkpoint: str | int | None) -> Model:
    """The model of a run's checkpoint; a damaged newest one is passed over."""
    environment.start()
    at = run_dir.checkpoint_step(path, checkpoint)
    method, constants = config.method.make(), run_dir.constants_of(path)
    shapes = abstract_state(config, method, constants)
    found = checkpoints.restore(path / "checkpoints", shapes, at=at, repair=False)
    if found is None:
        raise UserError(f"{path} holds no checkpoint yet")
    return grids.model_of(method, found.state, constants)
