"""The page of `anigan report` in a browser: charts, slider, names, phones, colors."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import browser, look, needs_browser, said, soon
from run_dirs import HOSTILE, judged
from tiny import anigan, write_config

from anigan_jax.report import collect
from anigan_jax.report import page as report_page
from anigan_jax.storage import metrics_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a whole process, as that of test_cli (whose compilation it finds)."""
    folder = tmp_path_factory.mktemp("report")
    done = anigan("train", write_config(folder), "--workdir", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """A page of one run, one of two, of which the second has a hostile name and other values."""
    folder = tmp_path_factory.mktemp("pages")
    one, two = (Path(shutil.copytree(trained, folder / name)) for name in ("one", "two"))
    judged(one)
    line = metrics_file.read_metrics(two / "metrics.jsonl")[-1]
    draws = np.random.default_rng(0)
    with (two / "metrics.jsonl").open("a") as file:
        for step in range(9, 800):
            values = {"loss/g": 5 + draws.normal(), "loss/d": 10 ** draws.normal()}
            file.write(json.dumps({**line, **values, "step": step}) + "\n")
    (two / "previews/ema" / "step_000000004.png").unlink()
    runs = [collect.collect(one, "one"), collect.collect(two, HOSTILE)]
    runs[1]["settings"]["seed"] = "7"
    for name, shown in (("single", runs[:1]), ("both", runs)):
        assert report_page.write(shown, folder / f"{name}.html") == []
    return folder


@pytest.fixture(scope="module")
def driver():
    with browser() as found:
        yield found


# Distinct colors of each chart's pixels; an empty canvas has one.
COLORS = """return [...document.querySelectorAll('.plot canvas')].map(c => new Set(new Uint32Array(
  c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size)"""
# Texts with less contrast than WCAG AA asks of them, against what is painted behind them.
CONTRAST = """
const parts = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
  v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const color = parts(getComputedStyle(node).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
};
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !node.checkVisibility() || node.closest('.bar')) continue;
  const pair = [parts(getComputedStyle(node).color), behind(node)];
  const [a, b] = pair.map(light).sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) found.push(node.outerHTML.slice(0, 200));
}
return found;"""


@pytest.mark.long
@needs_browser
def test_charts_are_drawn_and_can_be_worked(pages, driver):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    assert look(driver, pages / "single.html") == []
    wanted = driver.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).charts.length"
    )
    colors = driver.execute_script(COLORS)
    assert len(colors) == wanted > 4
    assert min(colors) > 20
    chart = driver.find_element(By.CSS_SELECTOR, ".chart")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    canvas = chart.find_element(By.TAG_NAME, "canvas")
    picture = "return arguments[0].toDataURL()"
    before = driver.execute_script(picture, canvas)
    button = chart.find_element(By.CSS_SELECTOR, ".legend button")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert driver.execute_script(picture, canvas) != before
    button.click()
    assert driver.execute_script(picture, canvas) == before
    # The legend follows the pointer; a drag zooms in, a button shows all steps again.
    over = chart.find_element(By.CSS_SELECTOR, ".u-over")
    third = over.size["width"] // 3
    ActionChains(driver).move_to_element_with_offset(over, -third, 0).perform()
    place = chart.find_element(By.CSS_SELECTOR, ".at")
    soon(lambda: place.text in ("step 2 (epoch 0.40)", "step 3 (epoch 0.60)"))
    ActionChains(driver).click_and_hold().move_by_offset(third, 0).release().perform()
    reset = chart.find_element(By.CSS_SELECTOR, ".tools button")
    soon(lambda: reset.text == "Reset zoom")
    reset.click()
    soon(lambda: not reset.is_displayed())
    log = next(b for b in chart.find_elements(By.CSS_SELECTOR, ".tools button") if b.text == "Log")
    log.click()
    assert log.get_attribute("aria-pressed") == "true"
    assert driver.execute_script(COLORS)[0] > 20
    assert said(driver) == []


@pytest.mark.long
@needs_browser
def test_the_slider_shows_the_training(pages, driver):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    look(driver, pages / "both.html")
    figures = driver.find_elements(By.CSS_SELECTOR, "[data-slide]")
    assert len(figures) == 2

    def state():
        return [(f.find_element(By.TAG_NAME, "img").get_attribute("src"), f.text) for f in figures]

    slider, last = driver.find_element(By.ID, "step"), state()
    slider.send_keys(Keys.ARROW_LEFT)
    assert driver.find_element(By.ID, "step-told").text == "step 4 (epoch 0.80)"
    assert slider.get_attribute("aria-valuetext") == "step 4 of 8"
    first = state()
    assert first[0][0] != last[0][0]
    assert first[0][1] == "Averaged weights, step 4 (epoch 0.80)"
    # The second run has no average of step 4; its nearest is shown.
    assert first[1] == last[1]
    driver.find_element(By.CSS_SELECTOR, "#panels input[value=samples]").click()
    assert [text for _, text in state()] == ["Current weights, step 4 (epoch 0.80)"] * 2
    loaded = "return [...document.images].every(i => i.naturalWidth > 0)"
    soon(lambda: driver.execute_script(loaded))
    play = driver.find_element(By.ID, "play")
    # At once: it says "Play" again after 600 ms.
    click = "arguments[0].click(); return arguments[0].textContent"
    assert driver.execute_script(click, play) == "Pause"
    soon(lambda: play.text == "Play")
    assert [text for _, text in state()] == ["Current weights, step 8 (epoch 1.60)"] * 2
    assert said(driver) == []


@pytest.mark.long
@needs_browser
def test_several_runs_and_hostile_names(pages, driver):
    from selenium.webdriver.common.by import By

    assert look(driver, pages / "both.html") == []
    assert HOSTILE in driver.title
    assert not driver.find_elements(By.CSS_SELECTOR, "img[onerror], img[src=x]")
    names = {one.text for one in driver.find_elements(By.CSS_SELECTOR, ".chart .legend button")}
    assert any(name.startswith(HOSTILE) for name in names)
    left, right = driver.find_elements(By.CSS_SELECTOR, ".glance article")
    assert left.rect["y"] == right.rect["y"]
    assert left.rect["x"] < right.rect["x"]
    rows = driver.find_elements(By.CSS_SELECTOR, "#settings tbody tr")
    assert [row.text for row in rows if row.is_displayed()] == ["seed 0 7"]
    driver.find_element(By.ID, "all-settings").click()
    assert all(row.is_displayed() for row in rows)
    code = driver.find_element(By.CSS_SELECTOR, ".command code")
    assert code.get_attribute("textContent").startswith("anigan train ")
    button = driver.find_element(By.CSS_SELECTOR, ".copy")
    button.click()
    soon(lambda: button.text == "Copied")


@needs_browser
@pytest.mark.parametrize("name", ["single", "both"])
def test_a_phone_needs_no_sideways_scrolling(pages, driver, name):
    from selenium.webdriver.common.by import By

    assert look(driver, pages / f"{name}.html", 360, 740) == []
    for details in driver.find_elements(By.TAG_NAME, "details"):
        driver.execute_script("arguments[0].open = true", details)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 360
    assert min(driver.execute_script(COLORS)) > 20
    if name == "both":
        shown = driver.find_elements(By.CSS_SELECTOR, ".glance article")
        assert [one.is_displayed() for one in shown] == [True, False]
        driver.find_elements(By.CSS_SELECTOR, ".switch input")[1].click()
        assert [one.is_displayed() for one in shown] == [False, True]


@needs_browser
def test_light_and_dark_can_be_read(pages, driver):
    grounds = []
    for dark in (False, True):
        look(driver, pages / "both.html", dark=dark)
        ground = "return getComputedStyle(document.body).backgroundColor"
        grounds.append(driver.execute_script(ground))
        driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert driver.execute_script(CONTRAST) == []
    light, dark = (sum(map(int, re.findall(r"\d+", ground))) for ground in grounds)
    assert light > 3 * 200
    assert dark < 3 * 50
