"""The page in a real browser, with a server process of its own and tiny networks behind it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from config_physics import MORPHOLOGY_NAMES
from tests.conftest import ROOT, render_galaxies

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
PATIENCE = 30_000  # ms; other tests may keep the cores busy
expect.set_options(timeout=PATIENCE)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

QUIET = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PICTURE = "#figure-a .picture[data-query]"
ATTRIBUTES = ("size", "brightness", "ellipticity", "redshift")
INDEX = (ROOT / "frontend" / "index.html").read_text(encoding="utf-8")
MODULES = [ROOT / "frontend" / name for name in sorted(set(re.findall(r'(?:href|src)="(\w+\.js)"', INDEX)))]
GRAVE = ("serious", "critical")
STALE = re.compile(r"\bstale\b")  # class of a row whose numbers belong to the request before


@contextmanager
def serving(*options, cwd):
    """Run app.py on a free port; its address."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    server = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        address = next((found[0] for line in server.stdout if (found := re.search(r"http://\S+/", line))), None)
        assert address, "the server ended without an address"
        drain = threading.Thread(target=server.stdout.read)
        drain.start()
        yield address
    finally:
        server.terminate()
        server.wait(20)
        drain.join()
        server.stdout.close()


@pytest.fixture(scope="module")
def address(untrained, tmp_path_factory):
    """Address of a server of two models, the GAN first."""
    options = [option for name in ("gan", "diffusion") for option in ("--checkpoint", untrained[name])]
    with serving(*options, cwd=tmp_path_factory.mktemp("served")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page by `open_page(path, width=…)`.

    At the end nothing may have been complained of in the console, but for lines with the words of `tolerated`.
    """
    contexts, complaints = [], []

    def open_page(path="/", width=1280, height=900, at=address, ready=True, exact=False, tolerated=None, **options):
        def complain(text):
            # Where the machine is slow, the browser says so: a file that was fetched beforehand waits to be used.
            if (tolerated is None or tolerated not in text) and "preloaded using link preload" not in text:
                complaints.append(text)

        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complain(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complain(str(error)))
        if exact:
            page.route(re.compile("/api/(measure|sheet.json)"), measure_well)
        page.goto(at.rstrip("/") + path)
        if ready:
            page.wait_for_selector(PICTURE)
            page.wait_for_function("() => document.querySelector('#announcement').textContent")  # measured
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert complaints == []


def measure_well(route):
    """Answer as a good network would let: what photometry can measure is 0.01 more than what was asked."""
    answer = route.fetch().json()
    for galaxy in answer.get("tiles", [answer]):
        for name, reading in galaxy["attributes"].items():
            reading["measured"] = None if name == "redshift" else reading["requested"] + 0.01
    route.fulfill(json=answer)


def query_shown(page, figure="#figure-a") -> dict[str, str]:
    """Parameters of the picture that is shown."""
    query = page.eval_on_selector(f"{figure} .picture", "picture => picture.dataset.query")
    return {name: value for name, (value,) in parse_qs(query).items()}


def wait_shown(page, figure="#figure-a", **parameters):
    """Wait until the picture shown has parameters, by name and text."""
    page.wait_for_function(
        """([figure, wanted]) => {
            const query = document.querySelector(`${figure} .picture`)?.dataset.query;
            const got = new URLSearchParams(query);
            return query && Object.entries(wanted).every(([name, value]) => got.get(name) === value);
        }""",
        arg=[figure, parameters],
    )


def wait_until(page, condition):
    """Wait until a condition holds that the page's own scripts cannot tell."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        page.wait_for_timeout(20)  # takes in the browser's events


def pixels_shown(page) -> list[int]:
    """Red, green and blue of 32 x 32 points of the picture."""
    return page.eval_on_selector(
        PICTURE,
        """image => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 32;
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0, 32, 32);
            return [...context.getImageData(0, 0, 32, 32).data];
        }""",
    )


def pull(page, name, to, steps=12, halfway=lambda: None):
    """Take a slider's thumb with the mouse and pull it to a part of its track; call `halfway` with it in hand."""
    box = page.locator(f"#slider-{name}").bounding_box()
    ratio = page.eval_on_selector(f"#slider-{name}", "s => (s.value - s.min) / (s.max - s.min)")
    thumb = 18
    place = [box["x"] + thumb / 2 + part * (box["width"] - thumb) for part in (ratio, (ratio + to) / 2, to)]
    middle = box["y"] + box["height"] / 2
    page.mouse.move(place[0], middle)
    page.mouse.down()
    page.mouse.move(place[1], middle, steps=steps // 2)
    halfway()
    page.mouse.move(place[2], middle, steps=steps // 2)
    page.mouse.up()


# Showing


def test_load(open_page):
    page = open_page()
    assert page.locator("#classes button").all_inner_texts() == ["Spiral", "Elliptical", "Merger", "Edge-on"]
    assert [s.get_attribute("data-attribute") for s in page.locator(".track input").all()] == list(ATTRIBUTES)
    said = "None of these galaxies exists: a neural network (a GAN), trained on 400 galaxies (random numbers), invents "
    expect(page.locator("#about")).to_contain_text(said + "them, 64 × 64 pixels.")
    for word in (re.compile(r"\d ms\b"), re.compile(r"latest\.pt|\bstep\b")):  # they help nobody, and stand in the card
        assert page.get_by_text(word).locator("visible=true").count() == 0
    page.get_by_role("button", name="Credits").click()
    card = page.get_by_role("dialog", name="Model card")
    expect(card.get_by_text("gan/latest.pt")).to_be_visible()
    expect(card.get_by_role("heading", name="Credits")).to_be_focused()
    expect(card.get_by_text("The dataset names nobody.")).to_be_visible()
    expect(card.get_by_role("link", name="whole card")).to_be_hidden()  # a run has none
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(page.locator("#seeds .tiles button:enabled")).to_have_count(8)
    assert query_shown(page)["morphology"] == "spiral"
    assert set(query_shown(page)) == {"morphology", *ATTRIBUTES, "seed", "model"}  # a typical galaxy: nothing is free
    assert len(set(pixels_shown(page))) > 8
    expect(page.locator("#slider-redshift-found")).to_have_text("not visible in a picture")
    expect(page.locator("#announcement")).to_contain_text("Spiral galaxy, seed 0")


def test_first_load_is_small(open_page, address):
    """With the picture of a galaxy: that of an untrained network is noise, which no file holds in little space."""
    (image,) = render_galaxies(1)[0].transpose(0, 2, 3, 1)
    file = BytesIO()
    Image.fromarray(image).resize((256, 256), Image.Resampling.LANCZOS).save(file, "PNG")
    page = open_page("about:blank", at="", ready=False, tolerated="net::ERR_FAILED")
    page.route("**/api/image.png?*", lambda route: route.fulfill(body=file.getvalue(), content_type="image/png"))
    page.route("**/api/sheet.png?*", lambda route: route.abort())  # not before the picture is there
    answers = []
    page.on("response", lambda response: answers.append(response))
    page.goto(address, wait_until="commit")
    page.wait_for_selector(PICTURE)
    wanted = {"/", "/style.css", "/api/model", "/api/image.png"} | {f"/{file.name}" for file in MODULES}
    wait_until(page, lambda: wanted <= {urlsplit(answer.url).path for answer in answers})
    assert sum(len(answer.body()) for answer in answers) < 150_000


def test_each_class(open_page):
    page = open_page(reduced_motion="reduce")  # no crossfade, in which a picture still shows the former one
    seen, bands = [], []
    for label, name in zip(
        ("Elliptical", "Merger", "Edge-on", "Spiral"), (*MORPHOLOGY_NAMES[1:], "spiral"), strict=True
    ):
        page.get_by_role("button", name=label, exact=True).click()
        wait_shown(page, morphology=name)
        expect(page.get_by_role("button", name=label, exact=True)).to_have_attribute("aria-pressed", "true")
        assert page.locator("#classes [aria-pressed=true]").count() == 1
        expect(page).to_have_url(re.compile(f"morphology={name}&"))
        seen.append(pixels_shown(page))
        bands.append(page.eval_on_selector(".gauge .scale .known", "band => band.style.cssText"))
    assert len({str(pixels) for pixels in seen}) == 4
    assert len(set(bands)) == 4


def test_gauges(open_page):
    page = open_page(exact=True)
    expect(page.locator("#slider-size-found")).to_have_text(re.compile(r"^measured 0\.\d{3} \(\+0\.010\)$"))
    place = "s => [s.querySelector('.marker').style.getPropertyValue('--at'), s.querySelector('.known').style.cssText]"
    at, band = page.eval_on_selector(".gauge .scale", place)
    asked = float(page.input_value("#slider-size"))
    assert float(at) == pytest.approx((asked + 0.01 - 0.05) / (0.28 - 0.05), abs=1e-6)
    assert "--from" in band
    assert "--to" in band
    page.focus("#slider-size")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#slider-size-found")).to_contain_text(f"measured {asked + 0.011:.3f}")
    assert page.get_attribute("#slider-size", "aria-valuetext") == f"{asked + 0.001:.3f} frame widths"
    expect(page.locator("#announcement")).to_contain_text(f"asked {asked + 0.001:.3f}, measured {asked + 0.011:.3f}")


def test_request_beyond_real_galaxies(open_page):
    page = open_page()
    expect(page.locator("#figure-a .support")).to_have_text("like real galaxies")
    page.focus("#slider-brightness")
    page.keyboard.press("End")
    wait_shown(page, brightness="0.600")
    expect(page.locator("#slider-brightness-range")).to_contain_text("Beyond most real galaxies")


WORDS = {
    "like": ("like real galaxies", "Real edge-on galaxies have values like these together."),
    "unusual": ("unusual", "Few real edge-on galaxies have values like these together."),
    "invented": (
        "invented",
        "No real edge-on galaxies have values like these together: the network makes this one up.",
    ),
}


def test_whether_there_are_real_galaxies_like_the_one_that_is_shown(open_page):
    page = open_page("/?morphology=edge-on&size=0.17&brightness=0.3&seed=5", exact=True)
    picture = page.locator(PICTURE)
    expect(page.locator("#figure-a .support")).to_have_text(WORDS["like"][0])
    expect(page.locator("#figure-a .verdict")).to_have_text(WORDS["like"][1])
    # Each picture says it, within a drag too: the measurement, which says it as well, is held back.
    page.route("**/api/measure?*", lambda route: None)
    verdict, said = "like", expect(page.locator("#figure-a .support"))

    def relabel(route):
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "galaxy-support": verdict})

    page.route("**/api/image.png?*", relabel)
    for verdict, to in (("invented", 0.8), ("unusual", 0.6), ("like", 0.3)):
        pull(page, "size", to, halfway=lambda word=WORDS[verdict][0]: said.to_have_text(word))
        expect(page.locator("#figure-a .verdict")).to_have_text(WORDS[verdict][1])
        expect(picture).to_have_attribute("aria-label", f"Edge-on galaxy, seed 5. {WORDS[verdict][1]}")


def test_a_proxy_that_leaves_out_what_a_picture_says_of_itself(open_page, address):
    def without(route):
        answer = route.fetch()
        route.fulfill(response=answer, headers={k: v for k, v in answer.headers.items() if k != "galaxy-support"})

    page = open_page("about:blank", at="", ready=False)
    page.route("**/api/image.png?*", without)
    page.goto(f"{address}?morphology=spiral&size=0.17")
    expect(page.locator("#figure-a .verdict")).to_have_text("Real spiral galaxies have a value like this.")


def test_free_attribute(open_page):
    page = open_page()
    button = page.get_by_role("button", name="Ellipticity free")
    row = page.locator(".gauge", has=button)
    button.click()
    page.wait_for_function("() => !new URLSearchParams(location.search).has('ellipticity')")
    expect(page.locator("#slider-ellipticity-range")).to_contain_text("Drawn from real ones")
    expect(row).not_to_have_class(STALE)  # until then the value is that of the galaxy before
    drawn = page.get_by_label("Value of Ellipticity").input_value()
    button.click()
    wait_shown(page, ellipticity=drawn)


def test_attribute_freed_and_held_at_once(open_page):
    """A click before the drawn value is known holds what is shown, the value from before."""
    page = open_page()
    page.route("**/api/measure?*", lambda route: None if "ellipticity" not in route.request.url else route.continue_())
    field = page.get_by_label("Value of Ellipticity")
    before = field.input_value()
    button = page.get_by_role("button", name="Ellipticity free")
    row = page.locator(".gauge", has=button)
    button.click()
    wait_until(page, lambda: "ellipticity" not in query_shown(page))
    expect(row).to_have_class(STALE)
    expect(field).to_have_value(before)
    button.click()
    wait_shown(page, ellipticity=before)
    expect(row).not_to_have_class(STALE)


# Moving


# Counts the page's own requests for pictures; the browser reports their ends late when the machine is busy.
COUNT_FLIGHTS = """() => {
  const send = window.fetch;
  window.flights = { now: 0, most: 0, all: 0 };
  window.fetch = async (path, ...rest) => {
    if (!path.startsWith("api/image.png")) return send(path, ...rest);
    flights.now += 1;
    flights.all += 1;
    flights.most = Math.max(flights.most, flights.now);
    try {
      return await send(path, ...rest);
    } finally {
      flights.now -= 1;
    }
  };
}"""


def test_drag_changes_the_picture(open_page):
    page = open_page()
    before = pixels_shown(page)
    page.evaluate(COUNT_FLIGHTS)

    def see_it_follow():
        wait_shown(page, size=f"{float(page.input_value('#slider-size')):.3f}")
        assert pixels_shown(page) != before

    pull(page, "size", 0.95, steps=24, halfway=see_it_follow)
    value = page.input_value("#slider-size")
    see_it_follow()
    assert float(value) > 0.25
    flights = page.evaluate("() => flights")
    assert flights["most"] == 1
    assert flights["all"] >= 2
    page.wait_for_function("value => location.search.includes(`size=${value}`)", arg=f"{float(value):.3f}")


def test_superseded_request_is_aborted(open_page):
    page = open_page()
    held, failures = [], []
    page.on("requestfailed", lambda request: failures.append((request.url, request.failure)))

    def hold_the_first(route):
        if held:
            route.continue_()
        else:
            held.append(route.request.url)

    page.route("**/api/image.png?*", hold_the_first)
    pull(page, "ellipticity", 0.9, halfway=lambda: wait_until(page, lambda: held))
    value = f"{float(page.input_value('#slider-ellipticity')):.3f}"
    wait_shown(page, ellipticity=value)
    wait_until(page, lambda: (held[0], "net::ERR_ABORTED") in failures)
    expect(page.locator("#message")).to_be_empty()


def test_nothing_flickers_or_jumps(open_page):
    page = open_page()
    page.evaluate(
        """() => {
            const picture = document.querySelector("#figure-a .picture");
            const probe = new OffscreenCanvas(32, 32).getContext("2d", { willReadFrequently: true });
            window.darkest = 255;
            window.shift = 0;
            const look = () => {
                probe.drawImage(picture, 0, 0, 32, 32);
                const { data } = probe.getImageData(0, 0, 32, 32);
                const most = data.reduce((peak, value, k) => (k % 4 < 3 ? Math.max(peak, value) : peak), 0);
                window.darkest = Math.min(window.darkest, most);
                requestAnimationFrame(look);
            };
            look();
            new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) window.shift += entry.value;
            }).observe({ type: "layout-shift" });
        }"""
    )
    pull(page, "size", 0.05)  # beyond the range of real galaxies, which another note says
    page.get_by_role("button", name="Merger", exact=True).click()
    page.locator(".fold summary").click()
    page.get_by_role("button", name="Redshift free").click()
    wait_shown(page, morphology="merger")
    page.wait_for_function("() => !location.search.includes('redshift')")
    assert page.evaluate("window.darkest") > 20  # in no frame was the picture empty
    assert page.evaluate("window.shift") < 0.001


def test_reduced_motion(open_page):
    page = open_page(reduced_motion="reduce")
    page.get_by_role("button", name="Edge-on", exact=True).click()
    wait_shown(page, morphology="edge-on")
    assert page.evaluate("document.getAnimations().length") == 0


# Choosing


def test_seeds_random_and_reset(open_page):
    page = open_page()
    page.get_by_role("button", name="Seed 5", exact=True).click()
    wait_shown(page, seed="5")
    expect(page.locator("#seed")).to_have_value("5")
    expect(page.get_by_role("button", name="Seed 0", exact=True)).to_be_visible()  # the former one takes its place
    page.fill("#seed", "4294967295")
    wait_shown(page, seed="4294967295")
    page.fill("#seed", "-3")
    expect(page.locator("#message")).to_contain_text("whole number")
    page.get_by_role("button", name="Random galaxy").click()
    expect(page.locator("#seed")).to_have_value(re.compile(r"^\d{1,6}$"))
    expect(page.locator("#seed")).to_have_attribute("aria-invalid", "false")
    expect(page.locator("#message")).to_be_empty()
    drawn = int(page.input_value("#seed"))
    wait_shown(page, seed=str(drawn))
    assert {"size", "brightness", "ellipticity"} <= set(query_shown(page))  # set to what was drawn
    page.get_by_role("button", name="Reset").click()
    wait_shown(page, seed="0", morphology="spiral")
    page.go_back()
    wait_shown(page, seed=str(drawn))


def test_seed_being_typed_is_left_alone(open_page):
    page = open_page()
    held = []
    page.route("**/api/measure?*", lambda route: held.append(route))
    page.fill("#seed", "12")
    wait_until(page, lambda: held)
    page.fill("#seed", "")
    held[0].continue_()
    expect(page.locator("#announcement")).to_contain_text("seed 12")  # the page has shown the measurement
    expect(page.locator("#seed")).to_have_value("")
    expect(page.locator("#seed")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#seed")).to_have_value("0")
    expect(page.locator("#message")).to_be_empty()


# The button says so for a moment alone, which a look now and then can miss.
COLLECT_LABELS = """(selector) => {
  const button = document.querySelector(selector);
  window.labels = [];
  const watch = new MutationObserver(() => labels.push(button.textContent));
  watch.observe(button, { childList: true, characterData: true, subtree: true });
}"""


def test_copied_link_restores_everything(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Merger", exact=True).click()
    page.get_by_role("button", name="Pin as B").click()
    page.get_by_role("button", name="Edge-on", exact=True).click()
    page.fill("#seed", "77")
    page.focus("#slider-size")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.locator(".fold summary").click()
    page.get_by_role("button", name="Redshift free").click()
    page.get_by_role("button", name="Half-light ellipses").click()
    page.select_option("#sweep-attribute", "ellipticity")
    wait_shown(page, morphology="edge-on", seed="77", size=f"{float(page.input_value('#slider-size')):.3f}")
    wait_until(page, lambda: "redshift" not in query_shown(page))
    page.evaluate(COLLECT_LABELS, "[data-action=copy]")
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("() => labels.some((label) => label.startsWith('Copied'))")
    link = page.evaluate("navigator.clipboard.readText()")

    parts = urlsplit(link)
    other = open_page(f"{parts.path}?{parts.query}")
    other.wait_for_selector("#figure-b .picture[data-query]")
    page.wait_for_selector("#figure-b .picture[data-query]")
    for one in ("#figure-a", "#figure-b"):
        assert query_shown(other, one) == query_shown(page, one)
    assert "redshift" not in query_shown(other)
    assert query_shown(other, "#figure-b")["morphology"] == "merger"
    wait_until(page, lambda: pixels_shown(other) == pixels_shown(page))  # once it has faded in
    expect(other.get_by_role("button", name="Half-light ellipses")).to_have_attribute("aria-pressed", "true")
    expect(other.locator("#sweep-attribute")).to_have_value("ellipticity")
    for name in ATTRIBUTES[:3]:
        assert other.input_value(f"#slider-{name}") == page.input_value(f"#slider-{name}")


def test_link_with_nonsense(open_page):
    page = open_page("/?morphology=comet&size=9&brightness=much&seed=-1&model=oracle", ready=False)
    words = ("oracle", "comet", "seed -1", "size", "brightness")  # which stand there for twelve seconds
    expect(page.locator("#message")).to_contain_text(re.compile(".*".join(words)))
    wait_shown(page, size="0.280", seed="0")


def test_downloads(open_page):
    page = open_page("/?morphology=elliptical&seed=3")
    starts = {"PNG": b"\x89PNG", "FITS": b"SIMPLE", "Catalogue row": b"seed,morphology"}
    menu = page.get_by_role("link", name="FITS")
    expect(menu).to_be_hidden()
    for label, start in starts.items():
        page.get_by_text("Download", exact=True).click()
        with page.expect_download() as download:
            page.get_by_role("link", name=label, exact=True).click()
        assert Path(download.value.path()).read_bytes().startswith(start)
        expect(menu).to_be_hidden()
    page.get_by_text("Download", exact=True).press("Enter")
    menu.press("Escape")
    expect(menu).to_be_hidden()
    expect(page.locator("#download")).to_be_focused()


# Sweeping and comparing


def test_sweep_plays(open_page):
    page = open_page(exact=True)
    page.locator("#sweep").scroll_into_view_if_needed()
    page.wait_for_selector("#sweep .marks i")
    assert page.get_attribute("#sweep .plot .found", "d").count("L") == 12
    expect(page.locator("#sweep-words")).to_contain_text("by 0.010 frame widths on average, with a bias of +0.010")
    start = page.input_value("#sweep-frame")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("start => document.querySelector('#sweep-frame').value !== start", arg=start)
    page.get_by_role("button", name="Pause").click()
    page.focus("#sweep-frame")
    page.keyboard.press("End")
    expect(page.locator("#sweep-reading")).to_contain_text("asked 0.280")
    page.get_by_role("button", name="Take this value over").click()
    wait_shown(page, size="0.280")
    page.select_option("#sweep-attribute", "redshift")
    expect(page.locator("#sweep-words")).to_contain_text("cannot be measured")


def test_compare_two_settings(open_page):
    page = open_page(exact=True)
    expect(page.locator("#figure-b")).to_be_hidden()
    page.get_by_role("button", name="Pin as B").click()
    wait_shown(page, "#figure-b", morphology="spiral")
    page.get_by_role("button", name="Elliptical", exact=True).click()
    wait_shown(page, morphology="elliptical")
    assert query_shown(page, "#figure-b")["morphology"] == "spiral"
    expect(page.locator("#comparison tbody tr")).to_have_count(4)
    expect(page.locator("#comparison tbody tr").first.locator("td.found").last).not_to_have_text("–")
    page.get_by_role("button", name="Swap A and B").click()
    wait_shown(page, morphology="spiral")
    wait_shown(page, "#figure-b", morphology="elliptical")
    page.get_by_role("button", name="Stop comparing").click()
    expect(page.locator("#figure-b")).to_be_hidden()
    expect(page.get_by_role("button", name="Pin as B")).to_be_focused()


def test_compare_two_models(open_page):
    page = open_page()
    page.get_by_role("button", name="Against diffusion").click()
    wait_shown(page, "#figure-b", model="diffusion")
    page.get_by_role("button", name="Merger", exact=True).click()
    wait_shown(page, "#figure-b", model="diffusion", morphology="merger")  # B follows A
    page.locator("#models").get_by_role("button", name="diffusion").click()
    wait_shown(page, model="diffusion")
    expect(page.locator("#about")).to_contain_text("a diffusion model")


# Keyboard, small screens, accessibility


def test_keyboard_alone(open_page):
    page = open_page()
    page.locator(".fold summary").focus()
    page.keyboard.press("Enter")  # opens what no picture shows
    page.evaluate("document.activeElement.blur()")
    page.evaluate("document.querySelector('.skip').focus()")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    order = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
                const one = document.activeElement;
                const style = getComputedStyle(one, one.type === "range" ? "::-webkit-slider-thumb" : null);
                const { choice, action, free } = one.dataset;
                return [one.id || choice || action || free || one.tagName, style.outlineStyle];
            }"""
        )
        order.append(name)
        if name == "BODY":
            break
        assert outline != "none", f"{name} does not show its focus"
    assert order[-1] == "BODY", "the focus does not leave the page again"
    wanted = ["spiral", "edge-on", "slider-size", "slider-redshift", "random", "download", "more", "sweep-attribute"]
    assert sorted(wanted, key=order.index) == wanted

    merger = page.get_by_role("button", name="Merger", exact=True)
    page.keyboard.press("3")
    assert merger.get_attribute("aria-pressed") == "true"
    wait_shown(page, morphology="merger")
    page.focus("#slider-size")
    page.keyboard.press("Home")
    wait_shown(page, size="0.050")
    page.keyboard.press("b")
    wait_shown(page, "#figure-b", size="0.050")
    page.keyboard.press("q")
    expect(page.locator("#figure-b")).to_be_hidden()
    page.focus("#seed")
    page.keyboard.press("4")  # typed, and no shortcut
    expect(page.locator("#seed")).to_have_value(re.compile("4"))
    expect(merger).to_have_attribute("aria-pressed", "true")
    page.focus("#slider-size")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    expect(page.locator("#help dl div")).to_have_count(18)
    page.uncheck("#single-keys")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("1")
    assert merger.get_attribute("aria-pressed") == "true"  # switched off: a press takes effect before it returns


@pytest.mark.parametrize("path", ["/", "/?morphology=edge-on&size=0.28&b=morphology%3Dmerger"])
def test_fits_a_small_phone(open_page, path):
    page = open_page(path, width=360, height=640)
    page.locator("#sweep").scroll_into_view_if_needed()
    page.wait_for_selector("#sweep .marks i")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    beyond = page.evaluate(
        """[...document.querySelectorAll("main :is(button, a, input, select, p, td, output, label)")]
            .filter((one) => !one.closest(".reel, [hidden], .unseen") && one.getClientRects().length)
            .filter((one) => one.getBoundingClientRect().right > 360.5 || one.getBoundingClientRect().left < -0.5)
            .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    page.locator("#slider-ellipticity").scroll_into_view_if_needed()
    assert page.locator("#figure-a .picture").bounding_box()["y"] >= 0  # the picture stays in sight of the sliders


def faults_of(page) -> list[str]:
    """Serious and critical faults that axe-core finds."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
    script = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)  # by the debugger, which the page's own rules for scripts do not concern
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    faults = [fault for fault in result["violations"] if fault["impact"] in GRAVE]
    return [f"{fault['id']}: {json.dumps([node['html'][:120] for node in fault['nodes']])}" for fault in faults]


def test_accessible(open_page):
    page = open_page(
        "/?morphology=edge-on&size=0.28&b=morphology%3Dmerger", reduced_motion="reduce"
    )  # nothing half faded
    page.locator("#sweep").scroll_into_view_if_needed()
    page.wait_for_selector("#sweep .marks i")
    assert faults_of(page) == []
    page.locator("[data-action=help]").click()
    assert faults_of(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Card", exact=True).click()
    assert faults_of(page) == []


def test_accessible_on_a_phone(open_page):
    assert faults_of(open_page(width=390, height=844, reduced_motion="reduce")) == []


# Below a path


@pytest.fixture(scope="module")
def proxy(address):
    """Address of a proxy that has the page below /galaxies and /user/me/proxy/5000 alone, and /notebook around it."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            found = re.fullmatch(r"(/galaxies|/user/me/proxy/5000)(?=[/?]|$)/?(.*)", self.path)
            status, headers, body = 404, {"Content-Type": "text/plain"}, b"no such thing"
            if self.path == "/notebook":
                status, headers = 200, {"Content-Type": "text/html"}
                body = (
                    b"<!doctype html><link rel=icon href='data:,'><title>Notebook</title>"
                    b"<iframe src='/galaxies/' width=900 height=800></iframe>"
                )
            elif found:
                kept = {
                    name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
                }
                try:
                    answer = urlopen(Request(address + found[2], headers=kept))
                except HTTPError as error:
                    answer = error
                with answer:
                    status, headers, body = answer.status, dict(answer.headers), answer.read()
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("date", "server", "connection", "content-length", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("path", ["/galaxies/", "/user/me/proxy/5000?morphology=merger&size=0.200&seed=9&model=gan"])
def test_the_page_below_a_path(open_page, proxy, path):
    """With a slash at the end of its address, and without: then a browser may look beside it for its files first."""
    prefix = path.partition("?")[0].rstrip("/") + "/"
    has_slash = path.startswith(prefix)
    page = open_page("about:blank", at="", ready=False, tolerated=None if has_slash else "404")
    asked = []
    page.on("response", lambda answer: asked.append((urlsplit(answer.url).path, answer.status)))
    page.goto(proxy + path)
    page.wait_for_selector(PICTURE)
    page.locator("#sweep").scroll_into_view_if_needed()
    page.wait_for_selector("#sweep .marks i")
    if not has_slash:
        assert query_shown(page)["morphology"] == "merger" and query_shown(page)["seed"] == "9"
    wanted = {"style.css", "api/model", "api/image.png", "api/measure", "api/sheet.png", "api/sheet.json"}
    got = {name for name, status in asked if status == 200}
    assert {prefix + name for name in wanted | {file.name for file in MODULES}} <= got
    assert all(name.startswith(prefix) for name, _ in asked) or not has_slash
    page.get_by_role("button", name="Elliptical", exact=True).click()
    wait_shown(page, morphology="elliptical")
    expect(page).to_have_url(re.compile(re.escape(f"{proxy}{prefix}?") + ".*morphology=elliptical"))
    assert (
        page.request.get(page.locator("#fits").evaluate("link => link.href")).headers["content-type"]
        == "application/fits"
    )
    page.reload()
    wait_shown(page, morphology="elliptical")
    page.go_back()
    wait_shown(page, morphology="merger" if "merger" in path else "spiral")


def test_the_page_in_a_frame_of_a_notebook(open_page, proxy):
    page = open_page("/notebook", at=proxy, ready=False)
    frame = page.frame_locator("iframe")
    frame.locator(PICTURE).wait_for()
    frame.get_by_role("button", name="Merger", exact=True).click()
    expect(frame.locator("#figure-a .class")).to_have_text("Merger")
    expect(frame.locator("#announcement")).to_contain_text("Merger galaxy")


# Failures in words


def test_busy_server(open_page):
    page = open_page(tolerated="503")  # the browser's own line
    busy = threading.Event()
    busy.set()

    def refuse(route):
        if busy.is_set():
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "busy"})
        else:
            route.continue_()

    page.route("**/api/image.png?*", refuse)
    page.get_by_role("button", name="Elliptical", exact=True).click()
    expect(page.locator("#message")).to_contain_text("busy")
    expect(page.locator("#message")).to_contain_text("Trying again in 1 s")
    assert query_shown(page)["morphology"] == "spiral"  # the old picture stays
    busy.clear()
    wait_shown(page, morphology="elliptical")
    expect(page.locator("#message")).to_be_empty()


def test_network_gone(open_page):
    page = open_page(tolerated="ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    page.get_by_role("button", name="Merger", exact=True).click()
    expect(page.locator("#message")).to_contain_text("does not answer")
    page.context.set_offline(False)
    wait_shown(page, morphology="merger")
    expect(page.locator("#message")).to_be_empty()


def test_no_checkpoint(open_page, tmp_path):
    with serving(cwd=tmp_path) as address:
        page = open_page(at=address, ready=False, tolerated="503")
        expect(page.get_by_role("heading", name="No checkpoint yet")).to_be_visible()
        expect(page.locator("#absent-hint")).to_contain_text("galaxy.py")
        expect(page.locator("#bench")).to_be_hidden()
        assert faults_of(page) == []
        page.close()
