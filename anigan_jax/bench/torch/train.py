"""Trains the PyTorch peer of a GAN on real images for some seconds, and draws from it.

python -m anigan_jax.bench.torch.train ref_dcgan64 --seconds 1800 --out peer --data.path FACES.zip
anigan evaluate peer --against FACES.zip

So both sides of a table of quality have the same config, data, seconds and judge. Other flags
are settings of the config; `ref_dcgan64` is the DCGAN of pytorch/examples.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from anigan_jax import api, config_file
from anigan_jax import config as configs
from anigan_jax.bench.torch.base import Peer
from anigan_jax.bench.torch.families import GANPeer, peer_of
from anigan_jax.config import Config
from anigan_jax.errors import UserError
from anigan_jax.storage import images as pictures

BATCH = 100
WAIT = 10
"""Steps between two waits for a GPU."""
SETTLE = 50
"""Batches from which the averaged weights' statistics are taken."""


def on_images(peer: Peer, images: np.ndarray) -> Peer:
    """The same peer, with (n, S, S, 3) uint8 images on its device in place of synthetic ones."""
    peer.data["a"]["image"] = torch.from_numpy(np.array(images)).to(peer.mode.device)
    return peer


def train(peer: Peer, seconds: float) -> float:
    """Takes steps until so many seconds are over; returns how many passed, the last step whole.

    The first step, which compiles and chooses kernels, comes on top, as in a sweep by seconds.
    """
    gpu = peer.mode.device != "cpu"
    peer.step()
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        for _ in range(WAIT if gpu else 1):
            peer.step()
        if gpu:
            # Steps would queue, and more be made than there was time for.
            torch.cuda.synchronize()
    return passed


@torch.no_grad()
def samples(peer: GANPeer, n: int) -> np.ndarray:
    """(n, S, S, 3) uint8 images: of the average of G's weights where there is one."""
    g, z = peer.g, peer.method.generator.z_dim
    if peer.average:
        for weight, mean in zip(g.parameters(), peer.average, strict=True):
            weight.copy_(mean)
        g.train()
        for _ in range(SETTLE):
            g(torch.randn(peer.config.batch_size, z, 1, 1, device=peer.mode.device))
    g.eval()
    unit, made = peer.method.generator.unit_range, []
    for start in range(0, n, BATCH):
        count = min(BATCH, n - start)
        x = g(torch.randn(count, z, 1, 1, device=peer.mode.device)).float()
        x = 2 * x - 1 if unit else x
        made.append(pictures.to_uint8(x.permute(0, 2, 3, 1).cpu().numpy()))
    return np.concatenate(made)


def settings(arguments: list[str]) -> tuple[argparse.Namespace, Config]:
    """The flags of this command, and the config with all others."""
    parser = argparse.ArgumentParser(
        prog="python -m anigan_jax.bench.torch.train", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("config")
    parser.add_argument("--seconds", type=float, required=True, help="of training steps")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the images")
    parser.add_argument("--n", type=int, default=10_000, help="how many images are drawn")
    for flag in ("channels-last", "amp", "compiled"):
        parser.add_argument(f"--{flag}", action="store_true")
    found, rest = parser.parse_known_args(arguments)
    config = config_file.override(config_file.load(found.config), rest, parser.prog)
    configs.check(config)
    return found, config


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2 where it is refused."""
    try:
        given, config = settings(sys.argv[1:] if arguments is None else arguments)
        if given.out.exists():
            raise UserError(f"{given.out} already exists; give a new folder")
        pack = api.data_of(config)
        torch.manual_seed(config.seed)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        peer = peer_of(config, given.channels_last, given.amp, given.compiled, device)
        if type(peer) is not GANPeer:
            raise UserError(f"{given.config} does not make images from noise")
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    passed = train(on_images(peer, pack.part("train")), given.seconds)
    # The first step was not timed.
    speed = (peer.steps - 1) * config.batch_size / passed
    print(f"{peer.steps:,} steps of {config.batch_size} in {passed:.1f} s, {speed:.1f} images/s")
    given.out.mkdir(parents=True)
    for i, image in enumerate(samples(peer, given.n)):
        pictures.save_image(Image.fromarray(image), given.out / f"{i:06d}.png")
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
