"""A page that makes images in the browser: one file, opened from disk, which asks no network.

ONNX Runtime Web (MIT, its version in `RUNTIME`) comes with the package, as published but for its
compression. The page runs it on one thread: more need headers that a file on disk does not have.
"""

from __future__ import annotations

import base64
import functools
import gzip
import io
import lzma
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import anigan_jax
from anigan_jax.data.synthetic import painted, photo
from anigan_jax.errors import UserError, printable
from anigan_jax.export import onnx, weights
from anigan_jax.export.about import about, license_of
from anigan_jax.export.generators import Generator, generators_of
from anigan_jax.opened import Opened
from anigan_jax.report.page import script_hash, script_json
from anigan_jax.report.table import environment
from anigan_jax.sampling import grids, prompts
from anigan_jax.storage.images import to_uint8

ASSETS = Path(__file__).parent / "assets"
RUNTIME = ASSETS / "onnxruntime_web"
SEEDS = 240
"""Their latents are in the page, so that a seed shows what `anigan sample` makes of it."""
PROMPTS = 48
"""In the page where the classes are too many for pickers."""
EXAMPLES = 6
"""Pictures to translate, of a domain."""
WAYS = {"ab": "Photo to anime", "ba": "Anime to photo"}
LARGE = 25_000_000
"""Bytes of a page that is slow to open on a phone."""


def check() -> None:
    """Refuses a page that could not be written: onnx is not installed."""
    onnx.check(onnx.OPSET)


def page(trained: Opened, data_license: str = "") -> str:
    """The page of a run's generators as HTML.

    Raises:
      UserError: the run has no generator, or none with an ONNX form, or makes RGBA.
    """
    if trained.config.method.channels == 4:
        raise UserError(
            "a demo page shows only opaque images, and this run makes transparent ones; "
            "`anigan sample RUN --seeds` writes them, `anigan export RUN` the generator"
        )
    generators = generators_of(trained, "float32")
    models = {}
    for generator in generators:
        data, _ = onnx.write(generator, about(trained, generator, data_license))
        models[generator.name] = _zipped(halved(data))
    data, arrays = _asked(trained, generators)
    style, script = _asset("demo.css"), _asset("demo.js")
    return (
        environment(ASSETS)
        .get_template("demo.html")
        .render(
            name=printable(trained.config.name),
            kind=data["kind"],
            size=data["size"],
            step=trained.step,
            version=anigan_jax.__version__,
            data_license=license_of(trained, data_license),
            ways=[(g.name, WAYS.get(g.name, g.name)) for g in generators],
            attributes=data["attributes"],
            prompts=data["prompts"],
            digests=[(g.name, g.sha256) for g in generators],
            style=style,
            script=script,
            # Nothing else runs, and nothing is fetched, whatever a name may hold.
            allowed=script_hash(script),
            license=(RUNTIME / "LICENSE").read_text(encoding="utf-8"),
            data=script_json(data),
            payloads={
                "worker": _zipped((_runtime() + _asset("demo_worker.js")).encode()),
                "wasm": _wasm(),
                **{f"model-{name}": zipped for name, zipped in models.items()},
                **{f"array-{name}": _base64(a.astype("<f4")) for name, a in arrays.items()},
            },
        )
    )


def _runtime() -> str:
    """ONNX Runtime Web as a script that defines `ort`.

    It is published as a module, but browsers start no worker with a module for a page on disk.
    """
    text = (RUNTIME / "ort.wasm.bundle.min.mjs").read_text(encoding="utf-8")
    text = re.sub(r"//# sourceMappingURL=\S*", "", text)
    text = text.replace("import.meta.url", "self.location.href")
    found = re.search(r"export\{([^{}]*)\};\s*$", text)
    pairs = (pair.strip().split(" as ") for pair in found[1].split(","))
    members = ",".join(f"{name}:{own}" for own, name in pairs)
    return f"'use strict';{text[: found.start()]}const ort={{{members}}};\n"


@functools.cache
def _wasm() -> str:
    return _zipped(lzma.decompress((RUNTIME / "ort-wasm-simd-threaded.wasm.xz").read_bytes()))


def halved(data: bytes) -> bytes:
    """An ONNX file whose kernels and tables are kept as float16, and computed with as float32.

    Images move by a fraction of one of 255 levels, and the page is half as large.
    """
    library = onnx.library()
    model = library.load_from_string(data)
    graph, to = model.graph, library.TensorProto.FLOAT
    casts = []
    for tensor in graph.initializer:
        name, array = tensor.name, library.numpy_helper.to_array(tensor)
        small = weights.halved(array)
        if small.dtype != array.dtype:
            half = library.numpy_helper.from_array(small, f"{name}/half")
            tensor.CopyFrom(half)
            casts.append(library.helper.make_node("Cast", [half.name], [name], to=to))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model.SerializeToString(deterministic=True)


def _asked(trained: Opened, generators: list[Generator]) -> tuple[dict, dict[str, np.ndarray]]:
    """What the page shows and asks the generators, as JSON and as arrays by name."""
    settings, texts, first = trained.config.method, trained.model.texts, generators[0]
    data: dict[str, Any] = {
        "name": printable(trained.config.name),
        "kind": "photos" if trained.method.translate else "words" if texts else "noise",
        "size": settings.size,
        "seeds": SEEDS,
        "models": [g.name for g in generators],
        "attributes": [],
        "prompts": [],
        "examples": {},
        # What the page's first image has to be.
        "check": _png(to_uint8(first.images(first.sample)[0])),
    }
    if trained.method.translate:
        for generator in generators:
            painter = photo if generator.name == "ab" else painted
            sources = [painter.paint(0, i, settings.size) for i in range(EXAMPLES)]
            data["examples"][generator.name] = [_png(image) for image in sources]
        return data, {}
    arrays = {"z": grids.latents_of(trained.method, range(SEEDS))}
    if "label" in first.sample:
        data["attributes"] = [
            {"name": a.name, "classes": list(a.classes), "start": int(at)}
            for a, at in zip(texts.attributes, first.sample["label"][0], strict=True)
        ]
    elif "text" in first.sample:
        drawn = prompts.from_data(texts, PROMPTS, 0)
        known = list({prompt.text: prompt for prompt in drawn}.values())
        data["prompts"] = [prompt.text for prompt in known]
        arrays["text"] = np.asarray(texts.encode(known))
    return data, arrays


def _png(image: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def _zipped(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
