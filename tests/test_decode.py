"""Every rule of decoding on a file of its own: golden pixels, or the right refusal."""

import io
import resource
import subprocess
import sys
import time

import files
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tiny import process_env

from anigan_jax.data import decode as d
from anigan_jax.data.decode import Crop, Refusal, decode


def corners(kind="PNG", size=(8, 8), **options) -> bytes:
    """Red at the top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", size, "white")
    w, h = size[0] // 2, size[1] // 2
    for color, left, top in (("red", 0, 0), ("lime", w, 0), ("blue", 0, h)):
        image.paste(color, (left, top, left + w, top + h))
    return files.encode(image, kind, **options)


RED, LIME, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def at_corners(pixels: np.ndarray) -> list:
    return [tuple(map(int, pixels[y, x])) for y in (1, -2) for x in (1, -2)]


# EXIF orientation -> where the four corners of the stored picture must come to lie.
TURNS = {
    1: [RED, LIME, BLUE, WHITE],
    2: [LIME, RED, WHITE, BLUE],
    3: [WHITE, BLUE, LIME, RED],
    4: [BLUE, WHITE, RED, LIME],
    5: [RED, BLUE, LIME, WHITE],
    6: [BLUE, RED, WHITE, LIME],
    7: [WHITE, LIME, BLUE, RED],
    8: [LIME, WHITE, RED, BLUE],
}


@pytest.mark.fault(15)
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_turns(orientation, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = corners(kind, exif=files.exif(orientation), **options)
    pixels, notes = decode(data, Crop(8))
    assert at_corners(pixels) == TURNS[orientation]
    assert [code for code, _ in notes] == (["rotated"] if orientation > 1 else [])


def grey16(value: int) -> bytes:
    return files.encode(Image.fromarray(np.full((12, 12), value, np.uint16)))


def palette() -> bytes:
    image = Image.new("P", (12, 12), 3)
    image.putpalette([0] * 9 + [10, 200, 90])
    return files.encode(image)


def clear_palette() -> bytes:
    image = Image.new("P", (12, 12), 0)
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.paste(1, (0, 0, 6, 12))
    return files.encode(image, transparency=0)


def long_text() -> bytes:
    """As of a picture generator that keeps its whole work flow."""
    said = PngImagePlugin.PngInfo()
    said.add_itxt("workflow", "masterpiece " * 2**18, zip=True)
    return files.picture(pnginfo=said)


def cmyk() -> bytes:
    return files.picture((0, 255, 255, 0), (16, 16), "CMYK", "JPEG", quality=100)


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("data", "want", "codes"),
    [
        (files.picture(), (200, 30, 60), []),
        (files.picture(kind="BMP"), (200, 30, 60), []),
        (files.picture(kind="WEBP", lossless=True), (200, 30, 60), []),
        (files.picture((200, 30, 60, 0), mode="RGBA"), (255, 255, 255), ["transparent"]),
        (files.picture((200, 100, 0, 51), mode="RGBA"), (244, 224, 204), ["transparent"]),
        (files.picture((200, 30, 60, 255), mode="RGBA"), (200, 30, 60), []),
        (files.picture((80, 51), mode="LA"), (220, 220, 220), ["grey", "transparent"]),
        (files.picture(90, mode="L"), (90, 90, 90), ["grey"]),
        (files.picture(1, mode="1"), (255, 255, 255), ["grey"]),
        (grey16(90 * 256 + 255), (90, 90, 90), ["16-bit"]),
        (grey16(4096), (16, 16, 16), ["16-bit"]),
        (grey16(4095), (15, 15, 15), ["16-bit", "dark"]),
        (grey16(255), (0, 0, 0), ["16-bit", "dark"]),
        (palette(), (10, 200, 90), ["palette"]),
        (cmyk(), (254, 0, 0), ["cmyk"]),
        (files.picture(icc_profile=files.swapped_profile()), (60, 30, 200), ["profile"]),
        (files.picture(icc_profile=b"no profile"), (200, 30, 60), ["bad profile"]),
        # Over the 1 MiB that Pillow takes of a text or profile.
        (files.picture(icc_profile=bytes(2**21)), (200, 30, 60), ["bad profile"]),
        (long_text(), (200, 30, 60), []),
    ],
)
def test_golden_pixels(data, want, codes):
    pixels, notes = decode(data, Crop(12))
    assert pixels.shape == (12, 12, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[3, 3], want, atol=1)
    assert [code for code, _ in notes] == codes


@pytest.mark.parametrize(
    ("size", "told"), [((40, 20), 2), ((20, 40), 1), ((41, 20), 1), ((39, 20), 0)]
)
def test_half_of_a_picture_that_is_lost_is_noted(size, told):
    notes = decode(files.picture(size=size), Crop(20)).notes
    assert [code for code, _ in notes] == ["cropped"] * bool(told)
    assert any("side by side" in detail for _, detail in notes) == (told == 2)


@pytest.mark.fault(15)
def test_a_transparent_palette_lies_over_white():
    pixels, notes = decode(clear_palette(), Crop(12))
    assert pixels[5, 1].tolist() == [200, 100, 50]
    assert pixels[5, 10].tolist() == [255, 255, 255]
    assert {code for code, _ in notes} == {"palette", "transparent"}


def test_the_first_picture_of_a_camera_file_is_used():
    data = files.encode(
        Image.new("RGB", (16, 16), (250, 250, 250)),
        "MPO",
        save_all=True,
        append_images=[Image.new("RGB", (16, 16), "black")],
    )
    pixels, notes = decode(data, Crop(16), ".jpg")
    assert pixels.min() > 240
    assert notes == [("pages", "2")]


@pytest.mark.fault(14)
def test_content_decides_and_the_wrong_extension_is_noted():
    pixels, notes = decode(files.picture(), Crop(12), ".jpg")
    assert pixels[0, 0].tolist() == [200, 30, 60]
    assert notes == [("extension", ".jpg holds PNG")]
    assert decode(files.picture(kind="JPEG"), Crop(12), ".JPEG").notes == []


@pytest.mark.fault(14)
@pytest.mark.parametrize("name", files.BAD)
def test_bad_files_have_their_reason(name):
    data, code = files.BAD[name]
    with pytest.raises(Refusal) as error:
        decode(data, Crop(32), "." + name.rsplit(".", 1)[1])
    assert error.value.code == code
    assert code in d.REFUSED


@pytest.mark.fault(14)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("close", [b"", b"\xff\xd9"])
def test_no_half_jpeg_passes(part, close):
    """Cut anywhere in the data, closed again or not: never grey for what is missing."""
    data = files.noise_file(3, "JPEG", quality=95)
    head = data.index(b"\xff\xda") + 12
    cut = data[: head + int(part * (len(data) - head))] + close
    with pytest.raises(Refusal) as error:
        decode(cut, Crop(32))
    assert error.value.code in ("truncated", "corrupt")


def test_pillow_alone_would_take_the_half_jpeg():
    """The reason why a second decoder looks at every JPEG."""
    image = np.asarray(Image.open(io.BytesIO(files.half_jpeg())).convert("RGB"))
    assert (np.abs(image[-1].astype(int) - 128) < 3).all()


@pytest.mark.parametrize(
    ("crop", "want"),
    [
        (Crop(8), [LIME, LIME]),
        (Crop(8, "pad"), [WHITE, WHITE]),
        (Crop(8, "box", (0, 0, 6, 6)), [RED, RED]),
        (Crop(8, "box", (20, 4, 4, 4)), [BLUE, BLUE]),
        (Crop(8, "box"), [LIME, LIME]),
    ],
)
def test_crops(crop, want):
    """A 24x8 picture of three squares; the pad shows white above and below it."""
    image = Image.new("RGB", (24, 8), "red")
    image.paste("lime", (8, 0, 16, 8))
    image.paste("blue", (16, 0, 24, 8))
    pixels, _ = decode(files.encode(image), crop)
    assert [tuple(map(int, pixels[0, 4])), tuple(map(int, pixels[7, 4]))] == want
    if crop.mode == "pad":
        np.testing.assert_allclose(pixels[4, 4], LIME, atol=8)


@pytest.mark.parametrize(("long", "first"), [(9, 2), (7, 1), (5, 0), (8, 2)])
def test_a_center_crop_leaves_the_odd_pixel_on_the_right_and_below(long, first):
    """4 of 9, 7 or 5 pixels: half of the margin, rounded down, is left out before them."""
    ramp = np.zeros((4, long, 3), np.uint8)
    ramp[..., 0] = 20 * np.arange(long)
    want = 20 * np.arange(first, first + 4)
    wide, _ = decode(files.encode(Image.fromarray(ramp)), Crop(4))
    assert (wide[..., 0] == want).all()
    high, _ = decode(files.encode(Image.fromarray(ramp.transpose(1, 0, 2).copy())), Crop(4))
    assert (high[..., 0] == want[:, None]).all()


@pytest.mark.parametrize("box", [(30, 2, 4, 4), (-9, 0, 4, 4), (2, 2, 0, 4), (2, 2, 4, -1)])
def test_boxes_outside_are_refused(box):
    with pytest.raises(Refusal) as error:
        decode(files.picture(), Crop(8, "box", box))
    assert error.value.code == "box"


def test_a_head_square_lies_within_the_image():
    assert d.head_square((335, 410), (67, 62, 183, 183), 1.5) == (22, 9, 274)
    for size, box in (((100, 80), (0, 0, 60, 60)), ((50, 200), (20, 150, 40, 40))):
        left, top, side = d.head_square(size, box, 1.5)
        assert left >= 0 <= top
        assert left + side <= size[0]
        assert top + side <= size[1]


@pytest.mark.fault(16)
def test_small_images_are_enlarged_down_to_half_and_then_refused():
    pixels, notes = decode(files.picture(size=(20, 20)), Crop(40))
    assert pixels.shape == (40, 40, 3)
    assert notes == [("enlarged", "20 to 40")]
    with pytest.raises(Refusal, match="too small"):
        decode(files.picture(size=(19, 19)), Crop(40))


@pytest.mark.parametrize(("upscale", "sharp"), [("smooth", False), ("nearest", True)])
def test_sprites_are_enlarged_where_that_is_asked(upscale, sharp):
    sprite = np.zeros((8, 8, 3), np.uint8)
    sprite[2:6, 3:5] = 255
    pixels, notes = decode(files.encode(Image.fromarray(sprite)), Crop(32, upscale=upscale))
    assert notes == [("enlarged", "8 to 32")]
    assert (pixels == sprite.repeat(4, 0).repeat(4, 1)).all() == sharp
    # What is made smaller is antialiased either way.
    large = files.picture(size=(64, 64))
    assert (decode(large, Crop(32, upscale=upscale)).pixels == decode(large, Crop(32)).pixels).all()
    with pytest.raises(Refusal, match="too small"):
        decode(files.picture(size=(1, 9)), Crop(32, "pad", upscale=upscale))


def test_what_lies_under_a_transparent_picture_is_chosen():
    clear = files.picture((200, 100, 0, 51), (12, 24), "RGBA")
    black = Crop(12, "pad", background="black")
    pixels, notes = decode(clear, black)
    assert notes == [("transparent", "")]
    assert pixels[6, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(pixels[6, 6], (40, 20, 0), atol=1)


@pytest.mark.fault(17)
def test_a_huge_picture_is_refused_fast_and_in_little_memory():
    """A process of its own under 400 MB of address space beyond what imports take."""
    code = (
        "import sys, resource; sys.path.insert(0, 'tests'); import files\n"
        "from anigan_jax.data.decode import decode, Crop, Refusal\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for w, h in ((50000, 50000), (2**31 - 1, 2**31 - 1), (60000, 2000)):\n"
        "    try: decode(files.png_of(w, h), Crop(64))\n"
        "    except Refusal as error: assert error.code == 'too large', error\n"
        "    else: raise SystemExit('taken')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=process_env(),
        cwd=process_env()["PYTHONPATH"],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50
    assert time.monotonic() - start < 30
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_a_huge_jpeg_is_decoded_at_a_fraction_of_its_size():
    """A phone's 64 megapixels; the box is of the whole picture."""
    image = Image.new("RGB", (8000, 8000), "red")
    image.paste("lime", (4000, 4000, 4800, 4800))
    data = files.encode(image, "JPEG", quality=60)
    whole = decode(data, Crop(32))
    assert whole.notes == [("reduced", "to 1/8")]
    assert whole.pixels[2, 2].tolist() == [254, 0, 0]
    head = decode(data, Crop(32, "box", (4200, 4216, 400, 400), 1.5))
    assert head.notes == [("reduced", "to 1/4")]
    assert (abs(head.pixels.astype(int) - [0, 255, 1]) < 9).all()
    cut = data[: len(data) // 2]
    with pytest.raises(Refusal, match="truncated"):
        decode(cut, Crop(32))
    with pytest.raises(Refusal, match="truncated"):
        decode(cut + b"\xff\xd9", Crop(32))


def test_a_crop_that_loses_most_of_a_picture_is_noted():
    image = Image.new("RGB", (40, 120), "blue")
    image.paste("red", (0, 0, 40, 40))
    data = files.encode(image)
    middle, top = decode(data, Crop(32)), decode(data, Crop(32, "top"))
    assert middle.notes == top.notes == [("cropped", "40x120 to 40x40")]
    assert (middle.pixels == [0, 0, 255]).all()
    assert (top.pixels == [255, 0, 0]).all()
    assert decode(data, Crop(32, "pad")).notes == []
    assert decode(files.picture(size=(40, 60)), Crop(32)).notes == []
