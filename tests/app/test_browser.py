"""The page in a real browser: drawing, stopping, bad uploads, leaving, two visitors."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra 'app' is not installed")
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives a browser, is not installed"
)

from trompe.app.serve import serve  # noqa: E402
from trompe.app.sessions import Session  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PATIENCE = 20_000
RUNNING = "document.querySelector('.live')?.dataset.step >= 2"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    address, page = serve(["tiny-vgg"], block=False)
    yield address
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        own = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
        try:
            browser = driver.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("no browser is installed: playwright install chromium")
        yield browser
        browser.close()


Open = Callable[[], Any]


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Opens the page as a new visitor; in the end nothing must have gone elsewhere."""
    contexts, elsewhere, errors = [], [], []

    def visit(**settings: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: r.url.startswith((address, "data:", "blob:"))
                or elsewhere.append(r.url))  # fmt: skip
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".chosen-photo img", timeout=PATIENCE)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert errors == []


def draw(page: Any) -> None:
    """A stroke across the canvas."""
    canvas = page.locator(".draw canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 200, steps=6)
    page.mouse.up()


def steps(page: Any, count: int) -> None:
    """Ask for that number of steps."""
    field = page.locator("#steps input[type=number]")
    if not field.is_visible():
        page.get_by_text("Network, explanation and steps").click()
        field.wait_for(timeout=PATIENCE)
        page.wait_for_timeout(500)  # a field that just appeared does not listen yet
    field.fill(str(count))
    field.press("Tab")
    slider = page.locator("#steps input[type=range]")
    sync_api.expect(slider).to_have_value(str(count), timeout=PATIENCE)


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def status(page: Any, words: str) -> str:
    """Wait until the line above the pictures holds these words; returns it."""
    line = page.locator("#status").filter(has_text=words)
    line.wait_for(timeout=PATIENCE)
    return str(line.inner_text())


def nothing_runs() -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not [t for t in threading.enumerate() if t.name == "trompe-attack"]:
            return True
        time.sleep(0.1)
    return False


def test_a_drawn_target_is_reached_and_taken_home(visit: Open, tmp_path: Path) -> None:
    page = visit()
    draw(page)
    steps(page, 60)
    press(page, "Start")
    status(page, "Done: 60 steps")
    text = page.locator("#live").inner_text()
    assert "60 of 60" in text
    assert page.locator(".live img").count() == 4
    assert page.locator(".live img").evaluate_all(
        "images => images.every(image => image.naturalWidth == 64)"
    )
    for one in ("#images", "#maps"):
        assert page.locator(f"{one} img").first.bounding_box()["width"] > 200
    before = page.locator("#smoothed img").nth(1).get_attribute("src")
    beta = page.locator("#beta input[type=number]")
    beta.fill("12")
    beta.press("Enter")
    page.wait_for_function(
        "before => document.querySelectorAll('#smoothed img')[1].src != before", arg=before,
        timeout=PATIENCE,
    )  # fmt: skip
    with page.expect_download() as waiting:
        page.locator("#download").click()
    waiting.value.save_as(tmp_path / "taken.zip")
    assert "result.safetensors" in zipfile.ZipFile(tmp_path / "taken.zip").namelist()


def test_what_the_network_answers_stands_there_before_the_start(visit: Open) -> None:
    page = visit()
    line = page.locator(".before p")
    line.filter(has_text="The network answers").wait_for(timeout=PATIENCE)
    said = line.inner_text()
    assert page.locator("#status").is_hidden()  # no empty line
    page.locator("#photo").get_by_label("cat").check()
    page.wait_for_function(
        "said => document.querySelector('.before p').innerText != said", arg=said, timeout=PATIENCE
    )
    assert page.locator(".before img").count() == 2


def test_nothing_drawn_is_said_in_one_line_and_drawing_helps(visit: Open) -> None:
    page = visit()
    press(page, "Start")
    status(page, "nothing is drawn yet")
    draw(page)
    page.locator(".draw").get_by_role("button", name="Clear").click()
    press(page, "Start")
    status(page, "nothing is drawn yet")
    draw(page)
    steps(page, 3)
    press(page, "Start")
    status(page, "Done: 3 steps")


def test_a_text(visit: Open) -> None:
    page = visit()
    page.get_by_label("write", exact=True).check()
    page.locator("#text input, #text textarea").fill("hello")
    steps(page, 3)
    press(page, "Start")
    status(page, "Done: 3 steps")


def test_stop_keeps_what_was_found(visit: Open) -> None:
    page = visit()
    draw(page)
    steps(page, 500)
    assert page.locator("#stop").is_disabled()
    press(page, "Start")
    page.wait_for_function(RUNNING, timeout=PATIENCE)
    assert page.locator("#start").is_disabled()  # a second start has to wait
    press(page, "Stop")
    status(page, "Stopped after")
    assert page.locator("#start").is_enabled()
    assert page.locator("#download").is_visible()
    assert nothing_runs()


def test_bad_uploads_are_refused_in_one_line(visit: Open, tmp_path: Path) -> None:
    page = visit()
    bad, good = tmp_path / "holiday.png", tmp_path / "good.png"
    bad.write_text("this is no picture")
    from PIL import Image

    Image.new("RGB", (300, 200), (10, 200, 10)).save(good)
    page.locator("input[type=file]").first.set_input_files(bad)
    line = status(page, "holiday.png")
    assert "broken or of an unknown kind" in line
    assert "\n" not in line.strip()
    assert "/" not in line  # no place on this machine
    assert page.get_by_label("coffee").first.is_checked()
    shown = page.locator(".chosen-photo img").get_attribute("src")
    page.locator("input[type=file]").first.set_input_files(good)
    page.wait_for_function(
        "shown => document.querySelector('.chosen-photo img').src != shown", arg=shown,
        timeout=PATIENCE,
    )  # fmt: skip
    assert page.get_by_label("your own").first.is_checked()
    page.wait_for_function("!document.querySelector('#status').innerText.trim()", timeout=PATIENCE)
    draw(page)
    steps(page, 3)
    press(page, "Start")
    status(page, "Done: 3 steps")


def remembered() -> int:
    """How many visitors the server remembers."""
    gc.collect()
    return sum(isinstance(one, Session) for one in gc.get_objects())


def test_leaving_the_page_ends_its_work_and_is_forgotten(visit: Open) -> None:
    before = remembered()
    page = visit()
    draw(page)
    steps(page, 500)
    press(page, "Start")
    page.wait_for_function(RUNNING, timeout=PATIENCE)
    assert remembered() > before
    page.close()
    assert nothing_runs()
    deadline = time.monotonic() + 30
    while remembered() > before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert remembered() <= before


def test_two_visitors_do_not_disturb_each_other(visit: Open) -> None:
    one, other = visit(), visit()
    for page, count in ((one, 400), (other, 20)):
        draw(page)
        steps(page, count)
        press(page, "Start")
    status(other, "Done: 20 steps")
    press(other, "Start")
    one.wait_for_function(RUNNING, timeout=PATIENCE)
    other.wait_for_function(
        "!document.querySelector('#status').innerText.includes('Done')", timeout=PATIENCE
    )
    status(other, "Done: 20 steps")
    press(one, "Stop")
    assert "400" not in status(one, "Stopped after")
    assert "20 of 20" in other.locator("#live").inner_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_stands_beside_the_screen(visit: Open, width: int) -> None:
    page = visit(viewport={"width": width, "height": 844}, has_touch=width < 500)
    draw(page)
    steps(page, 3)
    press(page, "Start")
    status(page, "Done: 3 steps")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
