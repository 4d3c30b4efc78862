"""What a run leaves to look at: metric lines, curves, image grids, a progress bar."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anigan_jax.downsample import SMOOTHED, running_mean
from anigan_jax.errors import UserError


def to_uint8(images) -> np.ndarray:
    """Floats in [-1, 1] -> uint8, rounded and clipped; any shape."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def grid(images, columns: int | None = None, pad: int = 2) -> Image.Image:
    """(N, H, W, 3) uint8, or floats in [-1, 1] -> one picture with white gaps."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        images = to_uint8(images)
    n, h, w, _ = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + pad) + pad, columns * (w + pad) + pad, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = pad + i // columns * (h + pad), pad + i % columns * (w + pad)
        sheet[top : top + h, left : left + w] = image
    return Image.fromarray(sheet)


def table(images, rows: list[str], columns: list[str] = (), pad: int = 2) -> Image.Image:
    """A grid with words: (R, C, H, W, 3) uint8 or floats in [-1, 1].

    Args:
      rows: R labels at the left; columns: C labels above, or none.
    """
    images = np.asarray(images)
    _, across, height, width, _ = images.shape
    sheet = grid(images.reshape(-1, *images.shape[2:]), columns=across, pad=pad)
    font = ImageFont.load_default(size=max(9, min(14, height // 4)))
    left = 12 + math.ceil(max(font.getlength(text) for text in rows))
    # A column's words stand below each other where they are wider than an image.
    columns = [
        text.replace(" ", "\n") if font.getlength(text) > width else text for text in columns
    ]
    lines = 1 + max((text.count("\n") for text in columns), default=-1)
    line = sum(font.getmetrics()) + 1
    above = lines * line + 4 if lines else 0
    page = Image.new("RGB", (left + sheet.width, above + sheet.height), "white")
    page.paste(sheet, (left, above))
    draw = ImageDraw.Draw(page)
    for i, text in enumerate(rows):
        middle = above + pad + i * (height + pad) + height // 2
        draw.text((left - 6, middle), text, "black", font, anchor="rm")
    for i, text in enumerate(columns):
        centre = left + pad + i * (width + pad) + width // 2
        place = centre, above - 2
        draw.multiline_text(place, text, "black", font, "md", spacing=1, align="center")
    return page


def kernel_grid(kernels: np.ndarray, scale: int = 10) -> Image.Image:
    """(k, k, 3, n) -> each filter scaled to its own range and enlarged, as a grid."""
    tiles = np.moveaxis(np.asarray(kernels, np.float64), -1, 0)
    low = tiles.min(axis=(1, 2, 3), keepdims=True)
    span = tiles.max(axis=(1, 2, 3), keepdims=True) - low
    tiles = np.rint((tiles - low) / np.where(span > 0, span, 1) * 255).astype(np.uint8)
    return grid(tiles.repeat(scale, 1).repeat(scale, 2), pad=4)


def save_image(image: Image.Image, path: Path, **options) -> Path:
    """Writes a picture whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}")
    image.save(temp, format=path.suffix[1:].upper(), **options)
    os.replace(temp, path)
    return path


def save_text(text: str, path: Path) -> Path:
    """Writes a text file whole or not at all, and to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}")
    with temp.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temp, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return path


def save_gif(frames: list[Image.Image], path: Path, milliseconds: int = 60) -> Path:
    """Writes a looping GIF."""
    rest = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    return save_image(frames[0], path, **rest)


def read_metrics(path: Path) -> list[dict]:
    """All whole lines; a partial last one (a killed run) is passed over."""
    if not path.exists():
        raise UserError(f"{path} does not exist; is this a run folder?")
    lines = path.read_text().split("\n")
    whole = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            whole.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}, line {number} is damaged") from None
    return whole


def best(lines: list[dict]) -> tuple[int, float] | None:
    """(step, KID) of the judged line with the lowest KID, the mean where there are several.

    Args:
      lines: of evaluation.jsonl; those without a KID do not count.
    """
    found = []
    for line in lines:
        kids = [value for name, value in line.items() if "kid-" in name and value is not None]
        if kids:
            found.append((sum(kids) / len(kids), line["step"]))
    if not found:
        return None
    kid, step = min(found)
    return step, kid


class MetricsFile:
    """metrics.jsonl; on resume, lines after the checkpoint's step are dropped.

    `lines` are the newest `memory` of the file; None: all.
    """

    def __init__(self, path: Path, step: int, memory: int | None = None):
        self.lines: deque[dict] = deque(maxlen=memory)
        if path.exists():
            keep = [line for line in read_metrics(path) if line["step"] <= step]
            self.lines.extend(keep)
            temp = path.with_name(f".{path.name}")
            with temp.open("w") as file:
                file.write("".join(json.dumps(line) + "\n" for line in keep))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        self.file = path.open("a")

    def write(self, line: dict) -> None:
        """One JSON line; NaN and Inf become null."""

        def clean(x):
            return None if isinstance(x, float) and not math.isfinite(x) else x

        line = {key: clean(value) for key, value in line.items()}
        self.lines.append(line)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """To the disk: a checkpoint must not outlive the lines before it."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


PLAYERS = ("loss/g", "loss/d")
PANELS = {
    "losses": PLAYERS,
    "terms": (),
    "scores": (
        "score/real",
        "score/fake",
        "score/wrong",
        "score/edges",
        "accuracy/d",
        "accuracy/hair",
        "accuracy/eyes",
        "accuracy/image_to_text",
    ),
}


def curves(metrics: list[dict], folder: Path) -> list[Path]:
    """losses.png, scores.png, and terms.png where losses have parts.

    Raw values are faint, running means bold.
    """
    # Imported here: matplotlib takes longer to start than the command line.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    parts = {key for line in metrics for key in line if key.startswith("loss/")} - set(PLAYERS)
    for name, keys in {**PANELS, "terms": sorted(parts)}.items():
        figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
        axes, shown = figure.add_subplot(), []
        for key in keys:
            points = [(m["step"], m[key]) for m in metrics if m.get(key) is not None]
            if not points:
                continue
            x, y = np.array(points, float).T
            mean = running_mean(y, max(1, len(y) // SMOOTHED))
            (line,) = axes.plot(x, mean, label=key, lw=2)
            axes.plot(x, y, color=line.get_color(), alpha=0.2, lw=0.7)
            shown.append(y)
        if not shown:
            continue
        values = np.concatenate(shown)
        low, high = np.percentile(values, [0.5, 99.5])
        margins = (low - 0.05 * (high - low) - 1e-3, high * 1.05 + 1e-3)
        # Least squares scores are no probabilities.
        shares = name == "scores" and low >= 0 and high <= 1
        axes.set_ylim((0, 1) if shares else margins)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        path = folder / f"{name}.png"
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        written.append(save_image(drawn, path))
    return written


class Progress:
    """A bar on a terminal, a plain line every 20 seconds elsewhere; on stderr."""

    def __init__(self, total: int, initial: int):
        self.total, self.step, self.last = total, initial, time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True)

    def update(self, step: int, line: dict) -> None:
        """Shows a metrics line at a step."""
        keys = ("loss/g", "loss/d", "images_per_sec")
        text = "  ".join(f"{k} {line[k]:.3g}" for k in keys if line.get(k) is not None)
        if self.bar:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(step - self.step)
        elif time.monotonic() - self.last > 20 or step >= self.total:
            self.last = time.monotonic()
            print(f"step {step}/{self.total}  {text}", file=sys.stderr, flush=True)
        self.step = step

    def close(self) -> None:
        if self.bar:
            self.bar.close()
