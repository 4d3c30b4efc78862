"""Photos of a user in the other domain: of real run folders, from good and hostile files."""

import dataclasses
import io
import json
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import files as made
import jax
import numpy as np
import pytest
from PIL import Image
from tiny import CYCLE, anigan, thin_vgg, untrained

from anigan_jax import api
from anigan_jax import config as configs
from anigan_jax.data.decode import Crop, decode
from anigan_jax.data.images import Images
from anigan_jax.data.synthetic.sources import PaintedPairs
from anigan_jax.errors import UserError
from anigan_jax.methods.augment import signed
from anigan_jax.sampling import photos
from anigan_jax.sampling.photos import Cropping
from anigan_jax.storage import images as record
from anigan_jax.storage import safetensors

# All of those that are bad at 16 px too.
BROKEN = {name: found for name, found in made.BAD.items() if name != "tiny.jpg"}
BOXES = {"b.png": (10, 4, 20, 22), "sub/c.jpg": (30, 30, 24, 24)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Both families that translate, of other sizes, and one that does not."""
    folder = tmp_path_factory.mktemp("photos")
    safetensors.write(thin_vgg(16), folder / "vgg.safetensors")
    big = ("--data.size", "32", "--method.generator.size", "32")
    rest = ("--method.discriminator.size", "32", "--method.features.path")
    return SimpleNamespace(
        cycle=untrained(folder / "one", "CYCLE"),
        cartoon=untrained(folder / "two", "CARTOON", *big, *rest, str(folder / "vgg.safetensors")),
        noise=untrained(folder / "three", "PLAIN"),
    )


@pytest.fixture
def album(tmp_path):
    """Three photos of other kinds and sizes; boxes.csv has boxes of two."""
    folder = tmp_path / "album"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(made.noise_file(1, "JPEG", 70, exif=made.exif(6)))
    (folder / "b.png").write_bytes(made.encode(made.noise(2, 90).resize((50, 80))))
    (folder / "sub" / "c.jpg").write_bytes(made.noise_file(3, "JPEG", 120))
    lines = [f"{name},{','.join(map(str, box))}" for name, box in BOXES.items()]
    (folder / "boxes.csv").write_text("\n".join(["file,x,y,w,h", *lines]) + "\n")
    return folder


def larger(images: np.ndarray, scale: int) -> np.ndarray:
    """Pixels repeated, as a sheet shows images whose words would need more room."""
    return images.repeat(scale, -3).repeat(scale, -2)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def expected(run: Path, direction: str, images: np.ndarray) -> np.ndarray:
    """By the method itself, one image at a time."""
    opened = api.load(run, "latest")
    params, stats = opened.state.ema, opened.state.stats["g"]
    change = jax.jit(opened.method.translate[direction])
    return np.stack([record.to_uint8(change(params, stats, signed(i[None])))[0] for i in images])


def cropped(path: Path, size: int, mode: str = "box", box=None) -> np.ndarray:
    return decode(path.read_bytes(), Crop(size, mode, box)).pixels


def album_at(album: Path, size: int) -> np.ndarray:
    names = ("a.jpg", "b.png", "sub/c.jpg")
    return np.stack([cropped(album / name, size, box=BOXES.get(name)) for name in names])


def cells(sheet: np.ndarray, count: int, across: int, size: int) -> np.ndarray:
    """(count, across, size, size, 3) of a sheet of one group of columns."""
    top, left = sheet.shape[0] - count * (size + 2), sheet.shape[1] - across * (size + 2)
    assert top > 0
    return np.stack(
        [
            np.stack(
                [
                    sheet[top + r * (size + 2) :, left + c * (size + 2) :][:size, :size]
                    for c in range(across)
                ]
            )
            for r in range(count)
        ]
    )


@pytest.mark.long
def test_a_folder_is_what_the_method_says_and_there_is_a_way_back(runs, album, verb):
    code, said, err = verb("translate", runs.cycle, album)
    assert code == 0, err
    assert "note: 1 without a face box" in err
    (out,) = (runs.cycle / "out/translate").glob("step_000000000_ab_*")
    for part in (f"{out / 'images'}  (3)", *(f"{out / n}.png" for n in ("rows", "before"))):
        assert part in said
    before = album_at(album, 16)
    after = expected(runs.cycle, "ab", before)
    written = [pixels(out / "images" / name) for name in ("a.png", "b.png", "sub/c.png")]
    np.testing.assert_array_equal(np.stack(written), after)
    again = expected(runs.cycle, "ba", after)
    want = np.stack([before, after, again], axis=1)
    np.testing.assert_array_equal(cells(pixels(out / "rows.png"), 3, 3, 64), larger(want, 4))
    for name, images in (("before", before), ("after", after)):
        np.testing.assert_array_equal(pixels(out / f"{name}.png"), record.grid(images))


@pytest.mark.long
@pytest.mark.parametrize("name", ["me.png", "\u5199\u771f.png"])
def test_photos_of_one_name_in_two_folders_keep_their_pictures(runs, tmp_path, verb, name):
    told = []
    for color in ("red", "blue", "red"):
        path = tmp_path / color / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), color).save(path)
        for words in (("translate", runs.cycle, path), ("history", runs.cycle, path)):
            code, said, err = verb(*words)
            assert code == 0, err
            told.append(said)
    # Of the same photo they are in the same place again.
    assert told[:2] == told[4:]
    assert len(set(told)) == 4


@pytest.mark.long
def test_files_folders_zips_and_tars_give_the_same(runs, album, tmp_path, verb):
    names = ("a.jpg", "b.png", "sub/c.jpg", "boxes.csv")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.write(album / name, name)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for name in reversed(names):
            archive.add(album / name, name)
    found = {}
    sources = {
        "folder": [album],
        "zip": [tmp_path / "x.zip"],
        "tar": [tmp_path / "x.tar.gz"],
        # Twice the same photo is once, and c.jpg has no boxes.csv beside it.
        "files": [album / "a.jpg", album / "b.png", album / "b.png"],
    }
    for name, given in sources.items():
        code, _, err = verb("translate", runs.cycle, *given, "--out", tmp_path / name)
        assert code == 0, err
        images = sorted((tmp_path / name / "images").rglob("*.png"))
        found[name] = {p.relative_to(tmp_path / name).as_posix(): p.read_bytes() for p in images}
    assert len(found["folder"]) == 3
    assert found["zip"] == found["tar"] == found["folder"]
    assert found["files"] == {k: v for k, v in found["folder"].items() if "sub" not in k}


def test_boxes_from_flags_and_from_a_file(album, tmp_path):
    photo, box = album / "sub/c.jpg", (40.0, 20.0, 30.0, 30.0)
    own = photos.gather([photo], Cropping(box=box, box_scale=2.0), 16)
    want = decode(photo.read_bytes(), Crop(16, "box", box, 2.0)).pixels
    np.testing.assert_array_equal(own.images[16][0], want)
    (tmp_path / "faces.csv").write_text("file,x,y,w,h\nc.jpg,40,20,30,30\n")
    listed = photos.gather([album], Cropping(boxes=str(tmp_path / "faces.csv")), 16)
    assert (listed.names[2], listed.centered) == ("sub/c.jpg", 2)
    np.testing.assert_array_equal(listed.images[16][2], cropped(photo, 16, box=box))
    one = photos.gather([photo], Cropping(boxes=str(tmp_path / "faces.csv")), 16)
    np.testing.assert_array_equal(one.images[16][0], cropped(photo, 16, box=box))


@pytest.mark.parametrize("crop", ["center", "pad", "auto", "box"])
def test_every_crop_is_that_of_the_data(album, crop):
    found = photos.gather([album], Cropping(crop), 16, 32)
    mode = "box" if crop in ("auto", "box") else crop
    for size in (16, 32):
        want = [cropped(album / name, size, mode, BOXES.get(name)) for name in found.names]
        np.testing.assert_array_equal(found.images[size], np.stack(want))
    assert found.centered == (mode == "box")


def test_a_photo_lies_on_the_background_of_the_run(runs, tmp_path, verb):
    """The data's `background`, under what is transparent and around what is padded."""
    clear = np.zeros((40, 20, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    data = Images(background="#0000ff")
    for crop in ("center", "pad"):
        found = photos.gather([tmp_path / "clear.png"], Cropping(crop).of_run(data), 16)
        assert (found.images[16] == (0, 0, 255)).all()
    assert Cropping().of_run(PaintedPairs()).background == "white"
    blue = Path(shutil.copytree(runs.cycle, tmp_path / "blue"))
    recorded = json.loads((blue / "run.json").read_text())
    recorded["config"]["data"] = configs.to_json(dataclasses.replace(data, path="x", size=16))
    (blue / "run.json").write_text(json.dumps(recorded))
    code, _, err = verb("translate", blue, tmp_path / "clear.png", "--out", tmp_path / "out",
                        "--checkpoint", "latest")  # fmt: skip
    assert code == 0, err
    shown = pixels(tmp_path / "out" / "before.png")
    assert (shown[2:-2, 2:-2] == (0, 0, 255)).all()


def test_photos_are_cropped_as_the_runs_images_were(album, tmp_path, verb):
    """Where nobody says another way: of a folder by its settings, of a pack by its import."""
    data = Images(path="gone", crop="pad", box_scale=2.0, background="#0000ff", upscale="nearest")
    told = Cropping().of_run(data)
    assert (told.crop, told.box_scale, told.upscale) == ("pad", 2.0, "nearest")
    box = (1.0, 2.0, 3.0, 4.0)
    assert Cropping("top", box_scale=3.0).of_run(data)[:4:3] == ("top", 3.0)
    assert Cropping(box=box).of_run(data).crop == "auto"
    words = ("import", album, "--size", 16, "--crop", "top", "--test", 0)
    code, _, error = verb(*words, "--out", tmp_path / "pack")
    assert code == 0, error
    assert Cropping().of_run(Images(path=str(tmp_path / "pack"))).crop == "top"
    photo = album / "b.png"
    for crop in ("top", "pad"):
        found = photos.gather([photo], Cropping().of_run(dataclasses.replace(data, crop=crop)), 16)
        want = decode(photo.read_bytes(), Crop(16, crop, None, 2.0, "#0000ff")).pixels
        np.testing.assert_array_equal(found.images[16][0], want)


@pytest.mark.long
def test_the_other_direction_and_another_size(runs, album, tmp_path, verb):
    flags = ["--direction", "ba", "--size", 24, "--crop", "pad", "--out", tmp_path / "out"]
    code, _, err = verb("translate", runs.cycle, album / "b.png", *flags)
    assert code == 0, err
    before = cropped(album / "b.png", 24, "pad")[None]
    after = expected(runs.cycle, "ba", before)
    np.testing.assert_array_equal(pixels(tmp_path / "out/images/b.png"), after[0])
    want = np.stack([before, after, expected(runs.cycle, "ab", after)], axis=1)
    np.testing.assert_array_equal(
        cells(pixels(tmp_path / "out/rows.png"), 1, 3, 72), larger(want, 3)
    )


@pytest.mark.long
def test_one_way_shows_two_columns(runs, album, tmp_path, verb):
    code, _, err = verb("translate", runs.cartoon, album / "b.png", "--out", tmp_path / "out")
    assert code == 0, err
    before = cropped(album / "b.png", 32, box=BOXES["b.png"])[None]
    want = np.stack([before, expected(runs.cartoon, "ab", before)], axis=1)
    np.testing.assert_array_equal(
        cells(pixels(tmp_path / "out/rows.png"), 1, 2, 64), larger(want, 2)
    )


def test_a_photo_becomes_the_same_whatever_is_beside_it(runs):
    model = api.load(runs.cycle, "latest").model
    images = np.stack([np.asarray(made.noise(i, 16)) for i in range(20)])
    together = photos.translated(model, "ab", images)
    for i in (0, 17):
        alone = photos.translated(model, "ab", images[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])


def test_names_of_files():
    assert photos.files(["a.jpg", "a.png", "sub/a.jpg"]) == ["a.jpg.png", "a.png.png", "sub/a.png"]
    assert photos.files(["A.jpg", "a.JPG"]) == ["A.jpg.png", "a.JPG_2.png"]
    assert photos.files(["a.jpg.webp", "a.jpg", "a.png"])[0] == "a.jpg.png"
    assert photos.files(["x.jpg", "x.jpg", "./x.jpg"]) == [
        "x.jpg.png",
        "x.jpg_2.png",
        "x.jpg_3.png",
    ]
    # A folder may have the name that a photo would get.
    assert photos.files(["a.png/b.jpg", "a.jpg"]) == ["a.png/b.png", "a_2.png"]
    (long,) = photos.files(["é" * 125 + ".jpg"])
    assert long == "é" * 100 + ".png"
    many = [f"{stem}.{kind}" for stem in ("a", "a.jpg", "A_2") for kind in ("jpg", "png", "bmp")]
    assert len({name.casefold() for name in photos.files(many)}) == len(many)


def test_same_names_are_all_written(runs, tmp_path, verb):
    for i, name in enumerate(("one/a.jpg", "one/a.png", "two/a.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(made.noise_file(i, "JPEG" if "jpg" in name else "PNG"))
    given = [tmp_path / "one", tmp_path / "two"]
    code, _, err = verb("translate", runs.cycle, *given, "--out", tmp_path / "out")
    assert code == 0, err
    written = sorted(p.name for p in (tmp_path / "out/images").iterdir())
    assert written == ["a.jpg.png", "a.png.png", "a.png_2.png"]


def test_hostile_names_stay_within_the_folder(runs, tmp_path, verb):
    bad = ("../../up.png", "/etc/abs.png", "c\\d.png", "a\x1b[2J.png")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in (*bad, "./sub/./fine.png", "fine.png", "FINE.PNG"):
            info = tarfile.TarInfo(name)
            info.size = len(made.noise_file(1))
            archive.addfile(info, io.BytesIO(made.noise_file(1)))
    before = set(tmp_path.rglob("*"))
    code, _, err = verb("translate", runs.cycle, tmp_path / "x.tar", "--out", tmp_path / "o/out")
    assert code == 1
    assert err.count("left out: ") == 5
    assert "leads out" in err
    assert "case only" in err
    assert "\x1b" not in err
    images = tmp_path / "o/out/images"
    assert set(images.rglob("*.png")) == {images / "fine.png", images / "sub/fine.png"}
    outside = {p for p in set(tmp_path.rglob("*")) - before if not p.is_relative_to(tmp_path / "o")}
    assert not outside


@pytest.mark.long
def test_bytes_that_are_no_text_may_be_a_name(runs, tmp_path):
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    (tmp_path / "in").mkdir()
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    (tmp_path / "in" / f"{name}.png").write_bytes(made.noise_file(1))
    (tmp_path / "in" / f"{name}.jpg").write_bytes(b"")
    done = anigan("translate", runs.cycle, tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "caf\\udce9.jpg: empty" in done.stderr
    assert len(list((tmp_path / "out/images").iterdir())) == 1


def test_what_cannot_be_used_is_left_out_and_named(runs, album, tmp_path, verb):
    for name, (data, _) in BROKEN.items():
        (album / name).write_bytes(data)
    code, out, err = verb("translate", runs.cycle, album, "--out", tmp_path / "out")
    assert code == 1
    assert "images  (3)" in out
    for name, (_, reason) in BROKEN.items():
        assert f"left out: {album}/{name}: {reason}: " in err


def test_nothing_usable(runs, tmp_path, verb):
    for name, (data, _) in BROKEN.items():
        (tmp_path / name).write_bytes(data)
    code, _, err = verb("translate", runs.cycle, tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert f"none of the {len(BROKEN)} photos can be used" in err
    assert f"and {len(BROKEN) - photos.NAMED} more" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


BAD = {
    "direction": (["translate", "CARTOON", "PHOTO", "--direction", "ba"], "it has ab"),
    "noise": (["translate", "NOISE", "PHOTO"], "use `anigan sample RUN`"),
    "noise compared": (["compare", "CYCLE", "NOISE", "PHOTO"], "use `anigan sample RUN`"),
    "sample": (["sample", "CYCLE"], "use `anigan translate RUN PHOTO...`"),
    "interpolate": (["interpolate", "CARTOON"], "use `anigan translate RUN PHOTO...`"),
    "no photo": (["translate", "CYCLE", "no.jpg"], "'no.jpg' does not exist"),
    "no run": (["translate", "PHOTO", "PHOTO"], "not a run directory"),
    "device": (["translate", "CYCLE", "/dev/null"], "is neither a file nor a folder"),
    "empty folder": (["translate", "CYCLE", "EMPTY"], "holds no images"),
    "broken zip": (["translate", "CYCLE", "ZIP"], "is not a readable zip"),
    "size": (["translate", "CYCLE", "PHOTO", "--size", "30"], "a multiple of 4, such as 32"),
    "size 0": (["translate", "CYCLE", "PHOTO", "--size", "0"], "such as 8"),
    "scale": (["translate", "CYCLE", "PHOTO", "--box-scale", "nan"], "it must be 1 to 10"),
    "box of many": (["translate", "CYCLE", "EMPTY", "--box", "1,2,3,4"], "is for one photo"),
    "box outside": (["translate", "CYCLE", "PHOTO", "--box", "900,2,30,40"], "face box is"),
    "box not used": (
        ["translate", "CYCLE", "PHOTO", "--crop", "pad", "--box", "1,2,3,4"],
        "uses no box",
    ),
    "both": (
        ["translate", "CYCLE", "PHOTO", "--box", "1,2,3,4", "--boxes", "x.csv"],
        "give only one",
    ),
    "boxes": (["translate", "CYCLE", "PHOTO", "--boxes", "no.csv"], "'no.csv' does not exist"),
    "three": (["translate", "CYCLE", "PHOTO", "--box", "1,2,3"], "four numbers X,Y,W,H"),
    "out": (["translate", "CYCLE", "PHOTO", "--out", "ZIP/x"], "cannot be a folder"),
    "out of compare": (
        ["compare", "CYCLE", "CARTOON", "PHOTO", "--out", "ZIP/x.png"],
        "cannot be written",
    ),
    "no png": (["compare", "CYCLE", "CARTOON", "PHOTO", "--out", "x.jpg"], "must end in .png"),
    "same run": (["compare", "CYCLE", "CYCLE", "PHOTO"], "are the same run"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BAD)
def test_mistakes_get_one_message_and_exit_code_2(runs, album, tmp_path, verb, name):
    arguments, named = BAD[name]
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.zip").write_bytes(b"PK\3\4 no zip")
    places = {
        "CYCLE": runs.cycle,
        "CARTOON": runs.cartoon,
        "NOISE": runs.noise,
        "PHOTO": album / "a.jpg",
        "EMPTY": tmp_path / "empty",
        "ZIP": tmp_path / "x.zip",
        "ZIP/x": tmp_path / "x.zip/x",
        "ZIP/x.png": tmp_path / "x.zip/x.png",
    }
    code, _, err = verb(*[places.get(argument, argument) for argument in arguments])
    assert code == 2
    assert named in err


@pytest.mark.long
def test_two_runs_of_other_sizes_side_by_side(runs, album, verb):
    (album / "broken.jpg").write_bytes(b"")
    # Here: a process with other threads may round a pixel otherwise.
    code, out, err = verb("compare", runs.cycle, runs.cartoon, album)
    assert code == 1, err
    assert "broken.jpg: empty" in err
    (path,) = (runs.cycle / "out/compare").glob("cartoon_step_000000000_000000000_ab_*.png")
    assert out.strip() == str(path)
    small, large = album_at(album, 16), album_at(album, 32)
    first = expected(runs.cycle, "ab", small).repeat(2, 1).repeat(2, 2)
    want = np.stack([large, first, expected(runs.cartoon, "ab", large)], axis=1)
    np.testing.assert_array_equal(cells(pixels(path), 3, 3, 64), larger(want, 2))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_photo_too_small_for_one_run_shifts_no_column(runs, album, tmp_path, verb, swapped):
    """Each row shows one photo, and what both runs make of it."""
    pair = (runs.cartoon, runs.cycle) if swapped else (runs.cycle, runs.cartoon)
    assert verb("compare", *pair, album, "--out", tmp_path / "before.png")[0] == 0
    Image.new("RGB", (12, 12), "red").save(album / "0.png")
    code, _, err = verb("compare", *pair, album, "--out", tmp_path / "after.png")
    assert code == 1 and "0.png: too small" in err
    assert (tmp_path / "before.png").read_bytes() == (tmp_path / "after.png").read_bytes()


def test_history_of_photos_takes_no_flags_of_latents(runs, album, verb):
    for flags in (("--scale", 2), ("--truncation", 0.5)):
        code, _, err = verb("history", runs.cycle, album, *flags)
        assert code == 2 and "images made from seeds" in err


def test_many_photos_stand_in_groups():
    images = np.stack([np.full((16, 16, 3), i, np.uint8) for i in range(30)])
    page = np.asarray(photos.rows([("A", images), ("A to B", 255 - images)]))
    # 30 are three groups of ten; a table has 12 px for the labels of its rows.
    assert page.shape[1] == 3 * (12 + 2 * 18 + 2)
    first = cells(page[:, : page.shape[1] // 3], 10, 2, 16)
    np.testing.assert_array_equal(first, np.stack([images, 255 - images], axis=1)[:10])
    last = cells(page, 10, 2, 16)
    np.testing.assert_array_equal(last, np.stack([images, 255 - images], axis=1)[20:])
    assert [photos.shown(*x) for x in ((5, 64), (430, 64), (430, 512), (430, 4096))] == [
        5,
        96,
        32,
        12,
    ]


def test_more_photos_than_a_sheet_shows(runs, tmp_path, verb):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(100):
            archive.writestr(f"{i:03}.png", made.noise_file(i, size=16))
    code, out, _ = verb("translate", runs.cycle, tmp_path / "x.zip", "--out", tmp_path / "out")
    assert code == 0
    assert "rows.png  (the first 96 of 100)" in out
    assert len(list((tmp_path / "out/images").iterdir())) == 100
    assert Image.open(tmp_path / "out/after.png").size == (10 * 18 + 2, 10 * 18 + 2)


def test_enlarging_repeats_or_resizes():
    images = np.stack([np.asarray(made.noise(1, 16))])
    assert (photos.enlarged(images, 48)[:, 1::3, 1::3] == images).all()
    assert photos.enlarged(images, 24).shape == (1, 24, 24, 3)


@pytest.mark.parametrize("name", ["cycle", "cartoon", "noise"])
def test_first_kernels_of_every_family(runs, verb, name):
    folder = getattr(runs, name)
    code, out, err = verb("kernels", folder)
    assert code == 0, err
    params = api.load(folder, "latest").params["d"]
    first = {
        "cycle": lambda: [params["a"]["down1"], params["b"]["down1"]],
        "cartoon": lambda: [params["flat1"]],
        "noise": lambda: [params["down1"]],
    }[name]()
    want = [np.asarray(record.kernel_grid(layer["weight"]["kernel"])) for layer in first]
    np.testing.assert_array_equal(pixels(Path(out.strip())), np.concatenate(want))


def test_what_a_run_cannot_do_is_said_without_jax():
    nothing = SimpleNamespace(translate=None, generate=None)
    with pytest.raises(UserError, match="trains no generator"):
        photos.need_direction(nothing, "ab")
    assert CYCLE.method.next_verbs[0][0] == "translate RUN PHOTO"
