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
            [row["failed"] for row in some if "failed" in row] + _turns(some) + _remarks(some),
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


def _turns(some: list[dict]) -> list[str]:
    """Which sides alternated, where not all of them did."""
    turns: dict[int, list[str]] = {}
    for row in some:
        if "turn" in row:
            turns.setdefault(row["turn"], []).append(row["side"])
    if len(turns) < 2:
        return []
    shown = "; then ".join(", ".join(labels) for labels in turns.values())
    return [f"not all fit in memory together; what alternated: {shown}"]


def _remarks(some: list[dict]) -> list[str]:
    """What is known of our side; nothing where it was lost."""
    mine = next((row for row in some if row["side"] == "ours" and "failed" not in row), None)
    if mine is None:
        return []
    counts = (("flops", "the layers"), ("xla_flops", "XLA"))
    work = [f"{mine[k] / 1e9:.3f} GFLOP an image by {who}" for k, who in counts if k in mine]
    lines = [", ".join([*work, f"windows spread by {mine['spread']:.0%}"])]
    if "end_to_end" in mine:
        lines += [
            f"end to end (data, every step logged): {mine['end_to_end']:,.1f} images/s; previews "
            f"and a checkpoint {mine['event_s']:.2f} s",
            f"logging, previews and checkpoints take {mine['overhead']:.1%} of the time",
        ]
    if "feed" in mine:
        lines.append(f"the resident data take {mine['feed']:.1%} of the time")
    if {"memory_mb", "memory_compiling_mb", "memory_run_mb"} <= mine.keys():
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
        found = {row["side"]: row.get("gflops_per_sec") for row in some}
        peak = found.get("matrix product")
        bars = [row for row in some if "images_per_sec" in row][::-1]
        colors = ["#4c72b0" if row["side"].startswith("ours") else "#bbbbbb" for row in bars]
        drawn = axis.barh(
            [row["side"] for row in bars], [row["images_per_sec"] for row in bars], color=colors
        )
        axis.bar_label(drawn, fmt="{:,.0f}", padding=3)
        most = [row["images_per_sec"] for row in bars]
        if peak and bars and "flops" in bars[0]:
            most.append(peak * 1e9 / bars[0]["flops"])
            label = "at the matrix product's rate"
            axis.axvline(most[-1], color="#c44e52", linestyle="--", label=label)
        axis.set_xlim(0, 1.12 * max(most, default=1))
        axis.set_title(f"{config}, {title}", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel(f"images per second, whole training steps; {machine}")
    if axes[0, 0].get_legend_handles_labels()[0]:
        axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
