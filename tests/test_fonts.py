"""Labels of any language on the sheets: letters that the first font lacks come from another."""

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageChops

from anigan_jax.storage import fonts, images

SQUARES = np.zeros((1, 1, 48, 48, 3), np.uint8)


@pytest.fixture
def system(monkeypatch):
    """Says which fonts the system has."""

    def has(*paths):
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [*map(str, paths)])
        fonts._file.cache_clear()

    yield has
    fonts._file.cache_clear()


def drawn(*texts, size=20) -> list[Image.Image]:
    font = fonts.font(size, texts)
    pages = []
    for text in texts:
        mask = font.getmask(text)
        pages.append(Image.frombytes("L", mask.size, bytes(mask)))
    return pages


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


@pytest.mark.parametrize("text", ["éñß", "αβγ", "Жяё", "ŁőŽ"])
def test_letters_of_europe_need_no_font_of_the_system(system, text):
    system()
    *letters, box = drawn(*text, "\ufffe")
    assert not any(same(letter, box) for letter in letters)
    assert len({bytes(letter.tobytes()) for letter in letters}) == len(letters)


def test_plain_words_look_as_ever(system, capsys):
    from PIL import ImageFont

    system()
    ours, theirs = fonts.font(12, ["blue hair"]), ImageFont.load_default(size=12)
    assert ours.getname() == theirs.getname()
    assert capsys.readouterr().err == ""


def with_letter(letter: str, path) -> None:
    """A font whose `letter` looks like an A."""
    from fontTools import ttLib

    font = ttLib.TTFont(font_manager.findfont("DejaVu Sans"))
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap[ord(letter)] = table.cmap[ord("A")]
    font.save(path)


def test_other_letters_come_from_the_first_font_that_has_all(system, tmp_path, capsys):
    with_letter("金", tmp_path / "b-Regular.ttf")
    (tmp_path / "a-Regular.ttf").write_bytes(b"no font")
    system(*tmp_path.iterdir())
    gold, a = drawn("金", "A")
    assert same(gold, a)
    assert capsys.readouterr().err == ""


def test_what_no_font_has_is_told_once(system, capsys):
    system()
    for _ in range(2):
        page = images.table(SQUARES, ["金髪"], ["é"])
    assert page.width > 48
    said = capsys.readouterr().err
    assert said.count("warning") == 1
    assert "金" in said and "髪" in said and "é" not in said
