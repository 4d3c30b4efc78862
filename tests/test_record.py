"""What a run leaves: pixels, metric lines, curves."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from anigan_jax.errors import UserError
from anigan_jax.report import curves
from anigan_jax.storage import images as record
from anigan_jax.storage import metrics_file


def test_floats_are_rounded_and_clipped():
    x = np.array([-2, -1, -0.5, 0, 0.003, 1, 2], np.float32)
    assert record.to_uint8(x).tolist() == [0, 0, 64, 128, 128, 255, 255]


def test_every_uint8_survives_the_way_there_and_back():
    values = np.arange(256, dtype=np.uint8)
    assert (record.to_uint8(values.astype(np.float32) / 127.5 - 1) == values).all()


def test_a_table_has_its_labels_beside_the_images():
    images = np.full((2, 3, 20, 24, 3), 200, np.uint8)
    images[1, 2] = 10
    page = np.asarray(record.table(images, ["blue hair", ""], ["red", "very green eyes", ""]))
    height, width = 2 * 22 + 2, 3 * 26 + 2
    body = page[-height:, -width:]
    assert (body == np.asarray(record.grid(images.reshape(-1, 20, 24, 3), columns=3))).all()
    # Dark ink: beside the first row, above the first two columns, nowhere else.
    ink = (page < 128).all(-1)
    side, top = ink[-height:, :-width], ink[:-height, -width:]
    assert side[:24].any()
    assert not side[24:].any()
    assert top[:, :26].any()
    assert top[:, 28:54].any()
    assert not top[:, 60:].any()
    assert not ink[:-height, :-width].any()


def test_a_grid_places_images_row_by_row():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 6, 3), np.uint8)
    sheet = np.asarray(record.grid(images, columns=3, pad=1))
    assert sheet.shape == (2 * 5 + 1, 3 * 7 + 1, 3)
    for i in range(5):
        top, left = 1 + i // 3 * 5, 1 + i % 3 * 7
        assert (sheet[top : top + 4, left : left + 6] == i).all()
    assert (sheet[0] == 255).all()
    assert (sheet[6:, 15:] == 255).all()


def test_kernels_are_scaled_each_to_its_own_range():
    kernels = np.zeros((2, 2, 3, 2), np.float32)
    kernels[0, 0, :, 0] = 0.01
    kernels[1, 1, :, 1] = -5
    sheet = np.asarray(record.kernel_grid(kernels, scale=1))
    first, second = sheet[4:6, 4:6], sheet[4:6, 10:12]
    assert (first[0, 0] == 255).all() and first.sum() == 3 * 255
    assert (second[1, 1] == 0).all() and second.sum() == 3 * 3 * 255


def test_pictures_replace_the_old_one_whole(tmp_path):
    path = tmp_path / "deep" / "a.png"
    for value in (10, 200):
        record.save_image(Image.new("RGB", (3, 3), (value,) * 3), path)
    assert np.asarray(Image.open(path))[0, 0, 0] == 200
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    frames = [Image.new("RGB", (3, 3), (v, 0, 0)) for v in (0, 90, 180)]
    assert Image.open(record.save_gif(frames, tmp_path / "a.gif")).n_frames == 3


def test_resuming_drops_later_lines_and_a_half_written_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = metrics_file.MetricsFile(path, 0)
    for step in range(6):
        first.write({"step": step, "loss/g": math.nan if step == 2 else 0.5})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 6, "lo')
    assert len(metrics_file.read_metrics(path)) == 6
    second = metrics_file.MetricsFile(path, 3)
    second.write({"step": 4, "loss/g": math.inf})
    second.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[2]["loss/g"] is None
    assert lines[4]["loss/g"] is None


def test_damage_inside_the_ledger_is_told(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\nbroken\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        metrics_file.read_metrics(path)
    with pytest.raises(UserError, match="run folder"):
        metrics_file.read_metrics(tmp_path / "none")


def test_curves_are_drawn_from_few_lines_and_from_none(tmp_path):
    rows = [{"step": i, "loss/g": 1.0 + i, "loss/d": None, "score/real": 0.5} for i in range(3)]
    for metrics in (rows, rows[:1], []):
        for path in curves.curves(metrics, tmp_path):
            image = np.asarray(Image.open(path).convert("RGB"))
            assert image.shape == (500, 900, 3)
