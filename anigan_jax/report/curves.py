"""Curves of a run's metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anigan_jax.report.series import SMOOTHED, running_mean
from anigan_jax.storage.images import save_image

PLAYERS = ("loss/g", "loss/d")
PANELS = {
    "losses": PLAYERS,
    "terms": (),
    "scores": (
        "score/real",
        "score/fake",
        "score/pair",
        "score/wrong",
        "score/edges",
        "accuracy/d",
    ),
}


def curves(metrics: list[dict], folder: Path) -> list[Path]:
    """losses.png, scores.png, and terms.png where losses have parts.

    Raw values are faint, running means bold. Epochs stand above, steps below.
    """
    # Imported here: matplotlib takes longer to start than the command line.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    # Epochs of a step; runs of before have none.
    share = next((m["epoch"] / m["step"] for m in reversed(metrics) if m.get("epoch")), None)
    parts = {key for line in metrics for key in line if key.startswith("loss/")} - set(PLAYERS)
    rates = dict.fromkeys(key for line in metrics for key in line if key.startswith("accuracy/"))
    shown_as = {"terms": sorted(parts), "scores": dict.fromkeys((*PANELS["scores"], *rates))}
    for name, keys in {**PANELS, **shown_as}.items():
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
        if share:
            top = axes.secondary_xaxis("top", functions=(lambda x: x * share, lambda x: x / share))
            top.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        path = folder / f"{name}.png"
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        written.append(save_image(drawn, path))
    return written
