"""Folders of tiny images with label files, as people bring them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from anigan_jax.data import discover
from anigan_jax.data.discover import Options

# Of each encoding.
WORDS = {
    "cp932": ("初音ミク", "鏡音リン", "巡音ルカ"),
    "gb18030": ("蓝色", "红色", "金发"),
    "big5": ("藍色", "紅色", "金髮"),
    "cp949": ("파랑", "빨강", "금발"),
    "cp1251": ("голубые", "красные", "зелёные", "светлые"),
    "cp1252": ("bleu clair", "doré", "noirâtre"),
    "utf-16": ("初音ミク", "голубые", "doré"),
}


def png(number: int = 0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def folder(root: Path, files: dict[str, str | bytes], images=12) -> Path:
    """Images 000.png, ..., or those of the names that are given, and files of text beside."""
    names = [f"{i:03d}.png" for i in range(images)] if isinstance(images, int) else images
    for i, name in enumerate(names):
        files = {**files, name: png(i)}
    for name, said in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(said.encode() if isinstance(said, str) else said)
    return root


def labels(path: Path, *attributes: str, **options) -> dict[str, dict]:
    found = discover.survey(path, Options(attributes=attributes, **options))
    return {item.name: dict(item.label) for item in found.items}


def noted(path: Path, *attributes: str, **options) -> dict[str, str]:
    """Kind of a finding -> its detail."""
    found = discover.survey(path, Options(attributes=attributes, **options))
    return {finding.code: finding.detail for finding in found.findings}


def table(*values: str, head: str = "file,hair", end: str = ".png", images: int = 12) -> str:
    rows = (f"{i:03d}{end},{values[i % len(values)]}" for i in range(images))
    return "\n".join([*([head] if head else []), *rows, ""])
