"""Twins and near copies against brute force, and splits that never part them."""

import hashlib
import io
import re
import sys
from pathlib import Path

import files
import numpy as np
import pytest
from PIL import Image, ImageDraw
from sources import scanned, write

from anigan_jax.data import dedup
from anigan_jax.report import data
from anigan_jax.report.table import as_text


def digests_of(images) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def find(images):
    thumbs = np.stack([dedup.thumbnail(image) for image in images])
    return dedup.find(thumbs, digests_of(images))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = files.encode(Image.fromarray(image), "JPEG", quality=quality)
    return np.asarray(Image.open(io.BytesIO(data)))


def smaller(image: np.ndarray) -> np.ndarray:
    half = Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS)
    return np.asarray(half.resize((64, 64), Image.Resampling.LANCZOS))


FACES = [np.asarray(files.noise(seed)) for seed in range(6)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda x: x.copy(), "duplicate"),
        (lambda x: x[:, ::-1], "mirror"),
        (lambda x: jpeg(x, 50), "near"),
        (smaller, "near"),
        (lambda x: jpeg(np.ascontiguousarray(x[:, ::-1]), 50), "mirror"),
        (lambda x: np.clip(x * 1.03, 0, 255).astype(np.uint8), "near"),
    ],
)
def test_each_kind_is_found_and_only_it(change, code):
    groups, pairs = find([*FACES, np.ascontiguousarray(change(FACES[2]))])
    assert pairs == [(6, 2, code)]
    assert groups.tolist() == [0, 1, 2, 3, 4, 5, 2]


def test_other_changes_are_not_taken_for_copies():
    for change in (lambda x: x[::-1], lambda x: 255 - x, lambda x: x[..., ::-1]):
        assert find([*FACES, np.ascontiguousarray(change(FACES[2]))])[1] == []


def test_groups_are_those_of_brute_force():
    """Random thumbnails around few centers, so that chains and mirrors occur."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 256, (40, 16, 16, 3))
    which = rng.integers(0, 40, 300)
    spread = rng.uniform(0, 14, (300, 1, 1, 1))
    thumbs = centers[which] + rng.normal(size=(300, 16, 16, 3)) * spread
    flip = rng.random(300) < 0.3
    thumbs[flip] = thumbs[flip][:, :, ::-1]
    thumbs = np.clip(np.rint(thumbs), 0, 255).astype(np.uint8)
    groups, pairs = dedup.find(thumbs, [str(i) for i in range(300)])
    flat = thumbs.reshape(300, -1).astype(float)
    mirrored = thumbs[:, :, ::-1].reshape(300, -1).astype(float)
    near = np.zeros((300, 300), bool)
    for other in (flat, mirrored):
        for i in range(300):
            near[i] |= np.sqrt(((other - flat[i]) ** 2).mean(1)) <= dedup.THRESHOLD
    near |= near.T
    want = np.arange(300)
    while True:
        lower = np.array([want[near[i] | (np.arange(300) == i)].min() for i in range(300)])
        if (lower == want).all():
            break
        want = lower
    assert groups.tolist() == want.tolist()
    assert 50 < len(pairs) == 300 - len(set(want.tolist()))
    assert {code for *_, code in pairs} == {"near", "mirror"}


def test_splits_keep_groups_and_do_not_depend_on_order_or_company():
    names = [str(i) for i in range(2000)]
    groups = np.arange(2000) // 2 * 2
    held = dedup.held_out(groups, names, 0.1)
    assert (held[::2] == held[1::2]).all()
    # 1,000 groups: four standard deviations around a tenth.
    assert abs(held.mean() - 0.1) < 0.04
    order = np.random.default_rng(0).permutation(2000)
    first = {int(g): int(np.flatnonzero(groups[order] == g)[0]) for g in set(groups.tolist())}
    regrouped = np.array([first[int(g)] for g in groups[order]])
    shuffled = dedup.held_out(regrouped, [names[i] for i in order], 0.1)
    assert (shuffled == held[order]).all()
    assert (dedup.held_out(groups[:500], names[:500], 0.1) == held[:500]).all()
    assert not dedup.held_out(groups, names, 0.0).any()
    # A larger share only adds.
    assert (held <= dedup.held_out(groups, names, 0.2)).all()


def test_nothing_and_one():
    empty = np.zeros((0, 16, 16, 3), np.uint8)
    assert dedup.find(empty, [])[1] == []
    groups, pairs = find(FACES[:1])
    assert groups.tolist() == [0]
    assert pairs == []


def avatar(seed: int) -> Image.Image:
    """A flat drawing: all have one layout, and two seldom the same picture."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (64, 64), (225, 230, 235))
    draw = ImageDraw.Draw(image)
    hair, skin, coat = (tuple(map(int, rng.integers(135, 185, 3))) for _ in range(3))
    draw.ellipse((12, 8, 52, 48), fill=hair)
    draw.ellipse((18, 16, 46, 46), fill=skin)
    draw.rectangle((14, 48, 50, 64), fill=coat)
    return image


def test_a_chain_of_like_drawings_leaves_a_held_out_set(tmp_path):
    drawings = {f"{i:03}.png": files.encode(avatar(i)) for i in range(200)}
    drawings["copy.jpg"] = files.encode(avatar(7), "JPEG", quality=95)
    drawings["mirror.png"] = files.encode(avatar(8).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    path = write(tmp_path / "x", drawings)
    found = scanned(tmp_path, path, test=0.2)
    thumbs = np.stack([dedup.thumbnail(np.asarray(avatar(i))) for i in range(200)])
    chained = np.bincount(dedup.find(thumbs, [str(i) for i in range(200)])[0]).max()
    assert chained > 150, "these drawings are no chain"
    report = data.summary("x", found)
    assert report["largest_group"] < 20
    assert 0.1 < report["held_out_share"] < 0.3
    assert [f.code for f in found.findings if not f.file] == ["chain"]
    assert "Held out: " in as_text(data.tables(report))
    side = {item.name: part for item, part in zip(found.items, found.parts, strict=True)}
    assert side["copy.jpg"] == side["007.png"]
    assert side["mirror.png"] == side["008.png"]


def test_a_chain_leaves_a_users_own_split(tmp_path):
    names = [("test" if i % 5 == 0 else "train") + f"/{i:03}.png" for i in range(200)]
    drawings = {name: files.encode(avatar(i)) for i, name in enumerate(names)}
    drawings["test/copy.png"] = drawings["train/001.png"]
    found = scanned(tmp_path, write(tmp_path / "x", drawings))
    parts = [found.parts[i] for i in found.order]
    assert parts.count("test") > 20
    assert ("test/copy.png", "leak") in {(f.file, f.code) for f in found.findings}


def test_copies_of_one_picture_are_no_chain():
    """However many there are: most are within the threshold of each other."""
    copies = [jpeg(FACES[0], quality) for quality in range(40, 80)]
    thumbs = np.stack([dedup.thumbnail(image) for image in [*copies, *FACES[1:]]])
    digests = digests_of([*copies, *FACES[1:]])
    groups, pairs, chains = dedup.without_chains(
        thumbs, digests, dedup.THRESHOLD, np.arange(len(thumbs))
    )
    assert chains == []
    assert len(set(groups[:40].tolist())) == 1
    assert len(pairs) == 39


def test_a_held_out_set_that_a_large_group_swallows_is_told(tmp_path):
    face = files.noise(3)
    images = {f"{q}.jpg": files.encode(face, "JPEG", quality=q) for q in range(36, 96)}
    found = scanned(tmp_path, write(tmp_path / "x", images), test=0.2)
    held = sum(part == "test" for part in found.parts)
    told = [f.detail for f in found.findings if f.code == "held out"]
    assert (held, told) == (0, ["0 of 60 images; 20% were asked for"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_thumbnails_of_a_large_set_do_not_stay_in_memory(tmp_path):
    """They are read of a map piece by piece: of a million images they are 768 MB."""
    corners = np.random.default_rng(0).integers(0, 256, (4000, 4, 4, 3), np.uint8)
    whole = corners.repeat(4, 1).repeat(4, 2)
    whole.tofile(tmp_path / "thumbs.bin")
    thumbs = np.memmap(tmp_path / "thumbs.bin", np.uint8, "r", shape=whole.shape)

    def resident() -> int:
        """kB of the file that this process holds."""
        maps = Path("/proc/self/smaps").read_text().split("thumbs.bin", 1)[1]
        return int(re.search(r"^Rss:\s+(\d+)", maps, re.MULTILINE)[1])

    most = thumbs.sum() and resident()
    groups, _ = dedup.find(thumbs, digests_of(whole))
    assert (groups == np.arange(len(whole))).all()
    assert resident() < most / 4
