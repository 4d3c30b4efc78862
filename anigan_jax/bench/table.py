"""Measured speeds, as tables and as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from anigan_jax.report.table import Table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HEAD = ("side", "images/s", "ours is", "GFLOP/s", "of peak", "MB", "compile s")


def tables(rows: list[dict]) -> list[Table]:
    """A table of whole steps for each batch and type."""
    return [
        Table(
            f"{title}; a whole step",
            HEAD,
            [_cells(row) for row in some if "failed" not in row],
            [row["failed"] for row in some if "failed" in row]
            + _remarks(next(row for row in some if row["side"] == "ours")),
        )
        for title, some in groups(rows).items()
    ]


def groups(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows of one combination each, by its title."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        devices = f", {row['devices']} devices" if row["devices"] > 1 else ""
        found.setdefault(f"batch {row['batch']}, {row['dtype']}{devices}", []).append(row)
    return found


def _cells(row: dict) -> tuple[str, ...]:
    def shown(name: str, form: str) -> str:
        return format(row[name], form) if name in row else ""

    ratio = "" if row["side"] == "ours" else shown("ours_is", ".2f")
    compiled = shown("compile_s", ".1f")
    if "compile_cached_s" in row:
        compiled += f" ({row['compile_cached_s']:.1f} cached)"
    return (
        row["side"],
        shown("images_per_sec", ",.1f"),
        f"{ratio}x" if ratio else "",
        shown("gflops_per_sec", ",.0f"),
        shown("of_peak", ".0%"),
        shown("memory_mb", ",d"),
        compiled,
    )


def _remarks(mine: dict) -> list[str]:
    counts = (("flops", "the layers"), ("xla_flops", "XLA"))
    work = [f"{mine[k] / 1e9:.3f} GFLOP an image by {who}" for k, who in counts if k in mine]
    lines = [
        f"{', '.join(work)}; windows spread by {mine['spread']:.0%}",
        f"end to end (data, every step logged): {mine['end_to_end']:,.1f} images/s; previews and "
        f"a checkpoint {mine['event_s']:.2f} s",
        f"logging, previews and checkpoints take {mine['overhead']:.1%} of the time, the resident "
        f"data {mine['feed']:.1%}",
    ]
    if "memory_compiling_mb" in mine:
        lines.append(
            f"MB of ours: its steps, found compiled; {mine['memory_compiling_mb']:,d} where they "
            f"are compiled, {mine['memory_run_mb']:,d} in a run that saves and draws"
        )
    return lines


def picture(config: str, machine: str, rows: list[dict], path: Path) -> None:
    """Bars of images per second, and the line where the matrix product's rate would be."""
    parts = groups(rows)
    figure, axes = plt.subplots(
        len(parts), 1, figsize=(8, 1 + 2.2 * len(parts)), squeeze=False, layout="constrained"
    )
    for axis, (title, some) in zip(axes[:, 0], parts.items(), strict=True):
        peak = next(row for row in some if row["side"] == "matrix product")["gflops_per_sec"]
        bars = [row for row in some if "images_per_sec" in row][::-1]
        colors = ["#4c72b0" if row["side"].startswith("ours") else "#bbbbbb" for row in bars]
        drawn = axis.barh(
            [row["side"] for row in bars], [row["images_per_sec"] for row in bars], color=colors
        )
        axis.bar_label(drawn, fmt="{:,.0f}", padding=3)
        most = [row["images_per_sec"] for row in bars]
        if "flops" in bars[0]:
            most.append(peak * 1e9 / bars[0]["flops"])
            label = "at the matrix product's rate"
            axis.axvline(most[-1], color="#c44e52", linestyle="--", label=label)
        axis.set_xlim(0, 1.12 * max(most))
        axis.set_title(f"{config}, {title}", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel(f"images per second, whole training steps; {machine}")
    if axes[0, 0].get_legend_handles_labels()[0]:
        axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
