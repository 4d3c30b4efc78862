"""A run as a page that makes images in the browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from anigan_jax import api
from anigan_jax.cli.common import Checkpoint, RunDir, Trust, Weights, writing
from anigan_jax.errors import UserError
from anigan_jax.storage import atomic


def demo(
    run: RunDir,
    *,
    out: Annotated[Path, arg(metavar="FILE.html|DIR")],
    data_license: Annotated[str, arg(metavar="TEXT")] = "",
    checkpoint: Checkpoint = "latest",
    weights: Weights = None,
    trust: Trust = False,
) -> int:
    """A page to try a run in the browser: one file that needs no network.

    Args:
      out: the page; an older one is replaced. A folder gets it as index.html, for a web host.
      data_license: license of the training images, which the page states.
    """
    if out.is_dir() or not out.suffix:
        out /= "index.html"
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UserError(f"--out {out} is not the name of a page, such as page.html, or a folder")
    from anigan_jax.export import demo as pages

    pages.check()
    trained = api.load(run, checkpoint, weights=weights, trust=trust)
    page = pages.page(trained, data_license)
    with writing(out):
        atomic.save_text(page, out)
    print(f"{out}  ({len(page) / 1e6:.1f} MB; open it in a browser)")
    if len(page) > pages.LARGE:
        print("note: a page of this size is slow to open on a phone", file=sys.stderr)
    return 0
