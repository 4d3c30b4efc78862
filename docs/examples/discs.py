import dataclasses
from dataclasses import dataclass

import numpy as np

from anigan_jax import load_config
from anigan_jax.data.attributes import Attribute
from anigan_jax.data.decode import Decoded
from anigan_jax.data.discover import Catalogue, Item
from anigan_jax.data.sources import Source

COLORS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


@dataclass(frozen=True)
class Discs(Source):
    count: int = 4096
    size: int = 64
    test: float = 0.1  # the share held out

    def key(self):  # what the pixels and labels depend on: another key is packed anew
        return {"source": "discs", "version": 1, **dataclasses.asdict(self)}

    def catalogue(self):  # all images by name, with their labels; nothing is drawn or read yet
        colors = [list(COLORS)[i % 2] for i in range(self.count)]
        items = [Item(f"{i:06}", f"{i}", label={"color": c}) for i, c in enumerate(colors)]
        return Catalogue(items, [], [], (Attribute("color", tuple(COLORS)),))

    def payloads(self, catalogue):  # (place of an item, what `make` needs): bytes, a row, nothing
        yield from ((i, None) for i in range(len(catalogue.items)))

    def make(self, item, payload):  # the image, (size, size, 3) uint8; in worker processes
        x, y = np.mgrid[: self.size, : self.size]
        at, radius = np.random.default_rng(int(item.member)).uniform(0.3, 0.7, 2), 0.2
        inside = np.hypot(x / self.size - at[0], y / self.size - at[1]) < radius
        pixels = np.where(inside[..., None], COLORS[item.label["color"]], 255).astype(np.uint8)
        return Decoded(pixels, [])


CONFIG = dataclasses.replace(load_config("quickstart"), name="discs", data=Discs())
