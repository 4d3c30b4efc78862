"""Run directories as they are after training and after the verbs, and what a page holds."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from anigan_jax.storage.run_dir import out_dir

HOSTILE = "</script><img src=x onerror=alert(1)>'\"ü"
FLOOR = {"kid-vgg16": 0.001, "coverage-vgg16": 0.9}
PROTOCOL = {"network": "vgg16", "sha256": "8" * 64, "seed": 0, "n": {"generated": 40}}


def judged(run: Path) -> Path:
    """Adds what evaluation, accuracy and probes would write, and warnings."""
    lines = [
        {"step": 4, "kid-vgg16": 0.02, "coverage-vgg16": 0.5},
        {"step": 8, "kid-vgg16": 0.03, "coverage-vgg16": None, "warnings": ["coverage fell"]},
    ]
    (run / "evaluation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "protocol.json").write_text(json.dumps({**PROTOCOL, "floor": FLOOR}))
    (run / "best.json").write_text('{"step": 4, "kid": 0.02}')
    columns = {"generated": 0.03, "like_floor": 0.04, "floor": 0.001}
    one = {
        "n": 1000,
        "train": 40,
        "held_out": 4,
        "scores": {"kid-vgg16": columns, "fd-vgg16": dict.fromkeys(columns)},
        "refused": {"fd-vgg16": "too few images for a covariance"},
        "memorization": {"pixels": {"ratio": 0.5, "fake": 1.0, "held_out": 2.0}},
        "lpips": {"generated": {"mean": 0.3, "error": 0.01, "pairs": 20}},
        "modes": {"hit": 5, "held": 9, "both": 4, "cells": 132, "tv": 0.5, "kl": float("inf")},
    }
    evaluate, probes, accuracy = (out_dir(run, v) for v in ("evaluate", "probe", "accuracy"))
    for folder in (evaluate, probes, accuracy):
        folder.mkdir(parents=True)
    panel = {
        "step": 8,
        "protocols": {"vgg16": PROTOCOL},
        "sets": {"generated": one},
        "l1": {"cycle/a": 0.25},
    }
    for step in (4, 8):
        path = evaluate / f"step_{step:09d}.json"
        path.write_text(json.dumps({**panel, "step": step}))
        Image.new("RGB", (40, 20), "red").save(path.with_name(f"{path.stem}_closest.png"))
    share = {"value": 0.5, "low": 0.25, "high": 0.75, "right": 5, "n": 10}
    parts = dict.fromkeys(("hair", "eyes", "both"), share)
    seen = {"pairs": 1, "prompts": parts, "by_class": {"hair": {"aqua": share}}}
    kinds = {"logistic": {"accuracy": share}, "neighbors": {"accuracy": share}}
    spaces = {key: {"numbers": 64, **kinds} for key in ("d", "untrained", "pixels")}
    task = {"classes": {"brown": [5, 5]}, "chance": share, "spaces": spaces}
    refused = {"eyes": "no brown eyes"}
    probed = {"step": 8, "n": 2, "seed": 0, "tasks": {"hair": task}, "refused": refused}
    (probes / "step_000000008.json").write_text(json.dumps(probed))
    followed = {"step": 8, "n": 2, "seed": 0, "ceiling": {"prompts": parts}, "seen": seen}
    (accuracy / "step_000000008_seed_0.json").write_text(json.dumps(followed))
    return run


class Page(HTMLParser):
    """Elements of a page, with what they ask for."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.asked, self.inside, self.texts = [], [], [], {}
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.asked += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "poster")]
        assert not [k for k, _ in attrs if k.startswith("on")], attrs
        if tag in ("script", "style"):
            self.inside.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.remove(tag)

    def handle_data(self, data):
        if self.inside:
            self.texts[self.inside[-1]][-1] += data

    @property
    def data(self) -> dict:
        return json.loads(self.texts["script"][0])
