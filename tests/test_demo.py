"""`anigan demo`: the page, what it holds and refuses, and what it does in a browser."""

import base64
import hashlib
import io
import lzma
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from browser import browser, look, needs_browser, said, soon
from PIL import Image
from run_dirs import HOSTILE
from tiny import untrained

from anigan_jax import api
from anigan_jax.data.synthetic import photo
from anigan_jax.export import demo, generators
from anigan_jax.export import onnx as onnx_files
from anigan_jax.sampling import photos, prompts, seeds

# As published in onnxruntime-web 1.30.0.
PUBLISHED = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: untrained(folder / name, name, *more)
        for name, more in (("FULL", [f"--name={HOSTILE}"]), ("TEXT", []), ("CYCLE", []))
    }


@pytest.fixture(scope="module")
def pages(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, run in runs.items():
        text = demo.page(api.load(run))
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


def test_a_page_is_one_file_that_asks_no_network(pages):
    for page in pages.iterdir():
        text = page.read_text(encoding="utf-8")
        assert len(text) < 6e6
        payload = r'<script type="application/octet-stream" id="[\w-]+">[\w+/=]+</script>'
        assert len(re.findall(payload, text)) >= 3
        rest = re.sub(payload, "", text)
        assert not re.search(r"https?:|//[a-z]+\.|@import|\bfetch\(|<link (?!rel=.icon)", rest)
        assert "default-src 'none'; script-src &#39;sha256-" in rest
        assert "MIT License" in rest


def test_a_name_is_text(pages):
    text = (pages / "FULL.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("&lt;img src=x") == 2


def test_the_runtime_is_the_published_one():
    found = {path.name.removesuffix(".xz"): path.read_bytes() for path in demo.RUNTIME.iterdir()}
    for name, digest in PUBLISHED.items():
        data = found[name]
        data = lzma.decompress(data) if name.endswith(".wasm") else data
        assert hashlib.sha256(data).hexdigest() == digest
    assert "Microsoft" in found["LICENSE"].decode()
    assert b"protobuf" in lzma.decompress(found["ThirdPartyNotices.txt"])


def test_kernels_of_half_the_bytes_give_the_same_images(runs):
    for generator in generators.generators_of(api.load(runs["TEXT"]), "float32"):
        whole, _ = onnx_files.write(generator, {})
        half = demo.halved(whole)
        kinds = {a.data_type for a in onnx.load_from_string(half).graph.initializer}
        assert onnx.TensorProto.FLOAT16 in kinds
        options = ["CPUExecutionProvider"]
        made = [
            onnxruntime.InferenceSession(data, providers=options).run(
                None, onnx_files.feeds(generator.sample)
            )[0]
            for data in (whole, half)
        ]
        assert 0 < np.abs(made[0] - made[1]).max() < 1 / 127.5


def refused(verb, *words) -> str:
    code, told, error = verb("demo", *words)
    assert (code, told, error.count("\n")) == (2, "", 1), error
    return error


def test_what_is_refused(verb, runs, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    assert "such as page.html" in refused(verb, runs["FULL"], "--out", tmp_path / "page.png")
    assert "not a run directory" in refused(verb, tmp_path, "--out", page)
    (tmp_path / "file").touch()
    within = tmp_path / "file" / "page.html"
    monkeypatch.setattr(demo, "page", lambda *_: "page")
    assert "cannot be written" in refused(verb, runs["FULL"], "--out", within)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'anigan_jax[onnx]'" in refused(verb, runs["FULL"], "--out", page)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_without_a_generator(verb, tmp_path):
    run = untrained(tmp_path / "judge", "JUDGE")
    assert "no generator" in refused(verb, run, "--out", tmp_path / "page.html")


def test_the_verb_writes_a_page(verb, runs, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(demo, "page", lambda *args: given.append(args) or "page")
    monkeypatch.setattr(demo, "LARGE", 3)
    out = tmp_path / "new" / "page.html"
    code, told, error = verb("demo", runs["FULL"], "--out", out, "--data-license", "CC0")
    assert (code, out.read_text(), given[0][1]) == (0, "page", "CC0")
    assert told.startswith(f"{out}  (0.0 MB")
    assert "slow to open" in error


def test_a_folder_gets_the_page_that_hosts_look_for(verb, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "page", lambda *_: "page")
    (tmp_path / "old.v2").mkdir()
    for folder in (tmp_path / "new", tmp_path / "old.v2"):
        code, told, _ = verb("demo", runs["FULL"], "--out", folder)
        assert (code, (folder / "index.html").read_text()) == (0, "page")
        assert told.startswith(str(folder / "index.html"))


@pytest.fixture(scope="module")
def driver():
    with browser() as found:
        yield found


def opened(driver, page: Path, width: int = 1280) -> None:
    """Opens a page and waits for its own comparison with the training library."""
    driver.execute_cdp_cmd("Network.enable", {})
    assert look(driver, page, width) == []
    status = driver.find_element("id", "status")
    soon(lambda: "came out as the training library makes it" in status.text)


def settled(driver) -> None:
    """Waits until nothing is drawn any more."""
    soon(lambda: driver.execute_script("return document.documentElement.dataset.idle === 'true'"))


def pixels(driver, selector: str) -> np.ndarray:
    """(H, W, 3) uint8, what is painted on a canvas."""
    url = driver.execute_script(f"return document.querySelector('{selector}').toDataURL()")
    return decoded(url)


def decoded(url: str) -> np.ndarray:
    data = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def apart(a: np.ndarray, b: np.ndarray) -> int:
    """Levels between two pictures where they differ most."""
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.long
@needs_browser
def test_seeds_and_a_walk_by_keyboard(runs, pages, driver, tmp_path):
    from selenium.webdriver.common.keys import Keys

    opened(driver, pages / "FULL.html")
    assert HOSTILE in driver.title
    settled(driver)
    model = api.load(runs["FULL"]).model
    wanted = seeds.made(model, range(8))
    for seed in (0, 1, 7):
        assert apart(pixels(driver, f'#grid [data-seed="{seed}"] canvas'), wanted[seed]) <= 2
    assert apart(pixels(driver, "#stage"), wanted[0]) <= 2
    # A face is picked without a mouse; the slider goes there, and back along the walk.
    face = driver.find_element("css selector", '#grid [data-seed="7"]')
    face.send_keys(Keys.ENTER)
    settled(driver)
    assert face.get_attribute("aria-pressed") == "true"
    assert driver.find_element("id", "caption").text == "Seed 7"
    assert apart(pixels(driver, "#stage"), wanted[7]) <= 2
    walk = driver.find_element("id", "walk")
    walk.send_keys(*[Keys.PAGE_DOWN] * 3)
    settled(driver)
    assert driver.find_element("id", "caption").text.startswith("Seed 1 to 7, ")
    assert apart(pixels(driver, "#stage"), wanted[7]) > 2
    walk.send_keys(Keys.HOME)
    settled(driver)
    assert apart(pixels(driver, "#stage"), wanted[0]) <= 2
    # Later seeds, and a face that is taken out of the walk.
    driver.find_element("id", "on").click()
    assert driver.find_element("id", "range").text == "24 to 47"
    driver.find_element("css selector", '#stops [data-seed="1"]').send_keys(Keys.SPACE)
    assert len(driver.find_elements("css selector", "#stops button")) == 2
    play = driver.find_element("id", "play")
    play.click()
    soon(lambda: " to " in driver.find_element("id", "caption").text)
    play.click()
    # What is saved is what is shown.
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    walk.send_keys(Keys.HOME)
    settled(driver)
    driver.find_element("id", "save").click()
    soon(lambda: list(tmp_path.glob("*.png")))
    (saved,) = tmp_path.glob("*.png")
    assert saved.name.endswith("_seed_0.png")
    assert apart(np.asarray(Image.open(saved).convert("RGB")), pixels(driver, "#stage")) == 0
    assert said(driver) == []
    asked = driver.execute_script(
        "return performance.getEntriesByType('resource').map((one) => one.name)"
    )
    assert not [url for url in asked if not url.startswith(("data:", "blob:"))]


@pytest.mark.long
@needs_browser
def test_words_are_picked(runs, pages, driver):
    from selenium.webdriver.common.keys import Keys

    opened(driver, pages / "TEXT.html")
    model = api.load(runs["TEXT"]).model
    hair = model.texts.attributes[0]
    picked = driver.find_element("css selector", "[type=radio]:checked")
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        picked.send_keys(key)
        picked, *others = driver.find_elements("css selector", "[type=radio]:checked")
        row = [int(one.get_attribute("value")) for one in (picked, *others)]
        assert hair.classes[row[0]] in picked.find_element("xpath", "..").text
        settled(driver)
        prompt = prompts.of_row(model.texts.attributes, np.array(row))
        wanted = seeds.made(model, [0, 5], prompt)
        assert apart(pixels(driver, "#stage"), wanted[0]) <= 2
        assert apart(pixels(driver, '#grid [data-seed="5"] canvas'), wanted[1]) <= 2
    assert said(driver) == []


@pytest.mark.long
@needs_browser
def test_prompts_where_there_is_no_table(runs, driver, tmp_path, monkeypatch):
    from selenium.webdriver.support.ui import Select

    monkeypatch.setattr(generators, "label_table", lambda _: None)
    trained = api.load(runs["TEXT"])
    page = tmp_path / "page.html"
    page.write_text(demo.page(trained), encoding="utf-8")
    opened(driver, page)
    known = prompts.from_data(trained.model.texts, demo.PROMPTS, 0)
    prompt = next(one for one in known if one.text != known[0].text)
    Select(driver.find_element("id", "prompt")).select_by_visible_text(prompt.text)
    settled(driver)
    wanted = seeds.made(trained.model, [0], prompt)[0]
    assert apart(pixels(driver, "#stage"), wanted) <= 2
    assert said(driver) == []


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (sign) => sign.charCodeAt(0));
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
const how = { dataTransfer, bubbles: true, cancelable: true };
document.body.dispatchEvent(new DragEvent("drop", how));
"""


@pytest.mark.long
@needs_browser
def test_a_picture_is_translated(runs, pages, driver, tmp_path):
    opened(driver, pages / "CYCLE.html")
    model = api.load(runs["CYCLE"]).model
    mine = photo.paint(3, 1, 16)
    Image.fromarray(mine).save(tmp_path / "mine.png")
    (tmp_path / "words.png").write_text("no picture")
    chosen = driver.find_element("id", "file")
    dropped = base64.b64encode((tmp_path / "mine.png").read_bytes()).decode()
    gives = {
        "ab": lambda: chosen.send_keys(str(tmp_path / "mine.png")),
        "ba": lambda: driver.execute_script(DROP, dropped),
    }
    for way, give in gives.items():
        driver.find_element("css selector", f"[value={way}]").click()
        settled(driver)
        driver.find_element("css selector", "#examples button").click()
        soon(lambda: apart(pixels(driver, "#source"), mine) > 0)
        give()
        soon(lambda: apart(pixels(driver, "#source"), mine) == 0)
        settled(driver)
        wanted = photos.translated(model, way, mine[None])[0]
        assert apart(pixels(driver, "#stage"), wanted) <= 2
    before = pixels(driver, "#source")
    driver.find_element("id", "source").send_keys("+", "+")
    soon(lambda: apart(pixels(driver, "#source"), before) > 0)
    chosen.send_keys(str(tmp_path / "words.png"))
    problem = driver.find_element("id", "problem")
    soon(lambda: problem.text == "words.png is not a picture that this browser can read.")
    ready = "Ready. A test image came out as the training library makes it."
    assert driver.find_element("id", "status").text == ready
    assert said(driver) == []


@needs_browser
@pytest.mark.parametrize("name", ["TEXT", "CYCLE"])
def test_a_phone_needs_no_sideways_scrolling(pages, driver, name):
    opened(driver, pages / f"{name}.html", 360)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 360
