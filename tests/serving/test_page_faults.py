"""Faults of the page that people met, and that do not come back: most in one tab, before a server in this process."""

from __future__ import annotations

import itertools
import re
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from galaxies.serving.application import create_app
from galaxies.serving.models import load_models

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, expect, measure_well = page_tests.browser, page_tests.expect, page_tests.measure_well
START = "?morphology=spiral&size=0.170&brightness=0.300&ellipticity=0.400&redshift=0.040&seed=5"
STALE = re.compile(r"\bstale\b")


@pytest.fixture(scope="module")
def address(untrained):
    """Address of a server in this process, of a GAN and a diffusion model."""
    from werkzeug.serving import make_server

    models = load_models([untrained["gan"], untrained["diffusion"]], "cpu")
    server = make_server("127.0.0.1", 0, create_app(models), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def tab(browser):
    """One tab for all tests of this file, and the faults of its scripts."""
    page, faults = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce"), []
    page.set_default_timeout(page_tests.PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.close()
    assert faults == []


@pytest.fixture
def page(tab, address):
    """Return the page with a measured galaxy in it; what a test has put between it and the server goes again."""
    tab.route(re.compile("/api/(measure|sheet.json)"), measure_well)  # an untrained network draws nothing to measure
    tab.goto(address + START)
    expect(tab.locator("#slider-size-found")).to_have_text("measured 0.180 (+0.010)")
    yield tab
    tab.unroute_all(behavior="wait")
    tab.set_viewport_size({"width": 1280, "height": 900})


def answer_nothing(page):
    page.route("**/api/**", lambda route: route.abort())


# What is shown is what is said


def test_nothing_of_the_former_galaxy_stands_under_a_request_that_fails(page):
    page.locator("#sweep").scroll_into_view_if_needed()
    expect(page.locator("#sweep-words")).to_contain_text("with a bias of")
    expect(page.locator("#seeds")).not_to_have_class(STALE)
    answer_nothing(page)
    page.get_by_role("button", name="Edge-on", exact=True).click()

    figure = page.locator("#figure-a")
    expect(figure.locator(".support")).to_have_text("not drawn")
    expect(figure.locator(".mark")).to_have_text("not drawn")
    expect(figure.locator(".class")).to_have_text("Edge-on")
    expect(figure.get_by_role("img", name="Edge-on galaxy, seed 5: not drawn")).to_be_visible()
    expect(figure.locator(".picture")).to_have_css("opacity", "0.14")
    assert figure.locator(".verdict").inner_text().strip() == ""
    assert page.locator(".gauge .found", has_text="measured 0.").count() == 0
    assert page.locator(".gauge .marker:not([hidden])").count() == 0
    expect(page.locator("#seeds")).to_have_class(STALE)
    expect(page.locator("#seeds .mark")).to_be_visible()
    for part in (".film", ".plot", ".projector canvas"):
        expect(page.locator(f"#sweep {part}")).to_be_hidden()
    expect(page.locator("#sweep-words")).to_have_text(re.compile("Drawing the film|is drawn once"))
    assert page.locator("#sweep-reading").inner_text() == ""
    expect(page.locator("#message")).to_contain_text("does not answer")

    # Another galaxy still, whose request waits; then the server is there again, and all is of this one.
    page.get_by_role("button", name="Merger", exact=True).click()
    expect(figure.locator(".support")).to_have_text(re.compile("not drawn|drawing…"))
    page.unroute("**/api/**")
    page.evaluate("dispatchEvent(new Event('online'))")
    page_tests.wait_shown(page, morphology="merger")
    expect(figure.locator(".support")).not_to_have_text(re.compile("drawn|drawing"))
    expect(figure.locator(".mark")).to_be_empty()
    expect(figure.locator(".picture")).to_have_css("opacity", "1")
    expect(page.locator(".gauge .marker:not([hidden])")).to_have_count(3)
    page.locator("#sweep").scroll_into_view_if_needed()
    expect(page.locator("#sweep .film")).to_be_visible()
    expect(page.locator("#sweep-words")).to_contain_text("merger galaxies")
    expect(page.locator("#seeds")).not_to_have_class(STALE)


def test_a_picture_and_its_caption_change_together(page):
    """While the picture is under way the caption is the former one's, or says that one is being drawn."""
    held = []
    page.route("**/api/image.png?*", lambda route: held.append(route))
    page.get_by_role("button", name="Elliptical", exact=True).click()
    seen = page.evaluate("[...document.querySelectorAll('#figure-a :is(.class, .verdict)')].map((p) => p.textContent)")
    assert seen[0] == "Spiral" or seen[1].strip() == ""
    expect(page.locator("#figure-a .support")).to_have_text("drawing…")
    expect(page.get_by_role("img", name="Elliptical galaxy, seed 5: drawing…")).to_be_visible()
    # Measured meanwhile, which says nothing of the picture that is still there.
    expect(page.locator("#slider-size-found")).to_contain_text("measured")
    expect(page.locator("#figure-a .support")).to_have_text("drawing…")
    expect(page.locator("#announcement")).to_contain_text("Spiral galaxy")  # nothing is told by halves
    page_tests.wait_until(page, lambda: held)
    # A proxy leaves out what the picture says of itself: the measurement has said it, before the picture came.
    answer = held[0].fetch()
    headers = {name: value for name, value in answer.headers.items() if name != "galaxy-support"}
    held[0].fulfill(response=answer, headers=headers)
    page_tests.wait_shown(page, morphology="elliptical")
    expect(page.get_by_role("img", name=re.compile("^Elliptical galaxy, seed 5. .*galaxies have"))).to_be_visible()
    expect(page.locator("#announcement")).to_contain_text("Elliptical galaxy, seed 5. ")


def test_a_measurement_is_of_the_values_that_are_shown(page):
    held = []
    page.route("**/api/measure?*", lambda route: held.append(route))
    page.locator("#slider-size").fill("0.200")
    expect(page.locator("#slider-size-found")).to_have_text("measuring…")
    page_tests.wait_until(page, lambda: held)
    held[0].fulfill(body='{"attributes": ', content_type="application/json")  # and there it breaks off
    expect(page.locator("#slider-size-found")).to_have_text("not measured")
    expect(page.locator("#message")).to_contain_text("The connection broke before the answer was there. Trying again")
    assert page.locator(".gauge .marker:not([hidden])").count() == 0
    page_tests.wait_until(page, lambda: held[1:])
    page.unroute("**/api/measure?*")
    measure_well(held[1])
    expect(page.locator("#slider-size-found")).to_have_text("measured 0.210 (+0.010)")
    expect(page.locator("#message")).to_be_empty()


@pytest.mark.slow
def test_the_other_models_picture_is_marked_as_well(page):
    answer_nothing(page)
    page.get_by_role("button", name="Pin as B").click()
    expect(page.locator("#figure-b .support")).to_have_text("not drawn")
    expect(page.locator("#figure-a .support")).to_have_text("like real galaxies")  # whose request is the same
    page.get_by_role("button", name="Stop comparing").click()


@pytest.mark.slow
def test_a_download_that_fails_says_so(page):
    answer_nothing(page)
    menu = page.get_by_text("Download", exact=True)
    menu.click()
    page.get_by_role("link", name="FITS", exact=True).click()
    expect(page.locator("#message")).to_contain_text("FITS could not be downloaded. The server does not answer")
    page.unroute("**/api/**")
    menu.click()
    with page.expect_download() as download:
        page.get_by_role("link", name="FITS", exact=True).click()
    name = "spiral_size-0.17_brightness-0.3_ellipticity-0.4_redshift-0.04_seed-5_gan"
    assert download.value.suggested_filename == f"{name}.fits"
    expect(page.locator("#message")).to_be_empty()
    for label, side in (("PNG", 512), ("PNG, native pixels", 64)):
        menu.click()
        with page.expect_download() as download:
            page.get_by_role("link", name=label, exact=True).click()
        assert download.value.suggested_filename == f"{name}.png"
        with Image.open(download.value.path()) as picture:
            assert picture.size == (side, side)
            assert picture.text["requested size"] == "0.17 frame widths"


def test_the_measured_ellipse_lies_where_the_galaxy_was_measured(page):
    """Asked and measured ones are about the measured centre, which in a merger is often not the frame's."""

    def place(route):
        answer = route.fetch().json()
        answer["ellipse"] = {"x": 0.6, "y": 0.45, "semi_major": 0.2, "semi_minor": 0.1, "angle": 30.0}
        route.fulfill(json=answer)

    page.route("**/api/measure?*", place)
    page.get_by_role("button", name="Half-light ellipses").click()
    page.locator("#slider-size").fill("0.160")
    found, asked = page.locator("#figure-a .rings .found"), page.locator("#figure-a .rings .asked")
    expect(found).to_have_attribute("cx", "0.6")
    names = ("cx", "cy", "rx", "ry", "transform")
    assert [found.get_attribute(name) for name in names] == ["0.6", "0.45", "0.2", "0.1", "rotate(30 0.6 0.45)"]
    # The asked radius 0.16 is the mean of the semi-axes, the asked ellipticity 0.4 one less their ratio.
    shape = [float(asked.get_attribute(name)) for name in ("rx", "ry")]
    assert sum(shape) / 2 == pytest.approx(0.16) and shape[1] / shape[0] == pytest.approx(0.6)
    assert [asked.get_attribute(name) for name in ("cx", "cy", "transform")] == ["0.6", "0.45", "rotate(30 0.6 0.45)"]
    expect(page.locator("#figure-a .rings")).to_have_css("opacity", "0.9")
    page.get_by_role("button", name="Half-light ellipses").click()


def test_what_no_picture_shows_is_folded_away_with_the_reason(page):
    slider = page.get_by_role("slider", name="Redshift")
    expect(page.get_by_role("slider", name="Ellipticity")).to_be_visible()
    expect(slider).to_be_hidden()
    page.get_by_text("Redshift: not visible in a picture").click()
    expect(slider).to_be_visible()
    expect(page.get_by_text("A picture does not show it")).to_be_visible()
    slider.fill("0.1")  # all the same it is part of the request
    page_tests.wait_shown(page, redshift="0.100")
    expect(page.get_by_role("option", name="Redshift (not visible)")).to_be_attached()


# Back, and by hand


def test_back_undoes_a_whole_drag(page):
    slider = page.locator("#slider-size")
    page_tests.pull(page, "size", 0.9, steps=8)
    page.wait_for_function("() => Number(new URLSearchParams(location.search).get('size')) > 0.25")  # it rests
    page_tests.pull(page, "brightness", 0.8, steps=4)
    page.get_by_role("button", name="Merger", exact=True).click()  # at once: the drag before is whole all the same
    page.go_back()
    page_tests.wait_shown(page, morphology="spiral", brightness=f"{float(page.input_value('#slider-brightness')):.3f}")
    assert float(page.input_value("#slider-brightness")) > 0.4
    page.go_back()
    expect(page.locator("#slider-brightness")).to_have_value("0.3")
    assert float(slider.input_value()) > 0.25
    page.go_back()
    expect(slider).to_have_value("0.17")
    page_tests.wait_shown(page, size="0.170", morphology="spiral")


def test_values_can_be_typed(page):
    field = page.get_by_label("Value of Half-light radius")
    expect(field).to_have_value("0.170")
    field.fill("0,2")
    expect(field).to_have_value("0,2")  # nothing is taken before it is entered
    field.press("Enter")
    page_tests.wait_shown(page, size="0.200")
    expect(field).to_have_value("0.200")
    expect(field).to_be_focused()
    field.fill("7")
    field.press("Tab")
    page_tests.wait_shown(page, size="0.280")
    expect(page.locator("#message")).to_have_text("Half-light radius goes from 0.050 to 0.280: its end is taken.")
    field.fill("large")
    field.press("Enter")
    expect(page.locator("#message")).to_have_text("Half-light radius is a number from 0.050 to 0.280, or free.")
    expect(field).to_have_value("0.280")
    field.fill("0.1")
    field.press("Escape")
    field.press("Enter")
    expect(field).to_have_value("0.280")
    field.fill("free")
    field.press("Enter")
    page.wait_for_function("() => !new URLSearchParams(location.search).has('size')")
    expect(page.get_by_role("button", name="Half-light radius free")).to_have_attribute("aria-pressed", "true")
    page.go_back()
    page_tests.wait_shown(page, size="0.280")


def test_an_emptied_seed_comes_back(page):
    page.fill("#seed", "")
    expect(page.locator("#message")).to_contain_text("whole number")
    page.locator("#seed").blur()
    expect(page.locator("#seed")).to_have_value("5")
    expect(page.locator("#seed")).to_have_attribute("aria-invalid", "false")
    expect(page.locator("#message")).to_be_empty()


@pytest.mark.slow
def test_random_keeps_the_class(page):
    page.get_by_role("button", name="Edge-on", exact=True).click()
    for _ in range(3):  # one of four classes three times by chance: once in 64
        before = page.input_value("#seed")
        page.get_by_role("button", name="Random galaxy").click()
        expect(page.locator("#seed")).not_to_have_value(before)
        expect(page.get_by_role("button", name="Edge-on", exact=True)).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_more_seeds_have_a_way_back(page):
    def shown(seed):
        expect(page.get_by_role("button", name=f"Seed {seed}", exact=True)).to_be_visible()

    shown(13)
    page.get_by_role("button", name="Eight more").click()
    shown(21)
    before = page.get_by_role("button", name="Eight before")
    before.click()
    shown(13)
    before.click()
    shown(0)
    expect(before).to_have_attribute("aria-disabled", "true")


@pytest.mark.slow
def test_a_free_value_that_nobody_knows_is_called_unknown(page):
    def unknown(route):
        answer = route.fetch().json()
        answer["attributes"]["redshift"]["requested"] = None
        route.fulfill(json=answer)

    page.route("**/api/measure?*", unknown)
    page.locator(".fold summary").click()
    page.get_by_role("button", name="Redshift free").click()
    expect(page.get_by_label("Value of Redshift")).to_have_value("unknown")
    page.get_by_role("button", name="Pin as B").click()
    expect(page.locator("#comparison tbody tr", has_text="Redshift").locator("td.asked").first).to_have_text("free")
    page.get_by_role("button", name="Stop comparing").click()


@pytest.mark.slow
def test_the_plot_says_its_axes_and_takes_clicks(page):
    page.locator("#sweep").scroll_into_view_if_needed()
    expect(page.locator("#sweep p.axis")).to_have_text("Half-light radius asked, frame widths")
    expect(page.locator("#sweep .plot .axis")).to_have_text("measured, frame widths")
    page.locator("#sweep .plot").scroll_into_view_if_needed()
    width = page.locator("#sweep .plot").bounding_box()["width"]
    page.locator("#sweep .plot").click(position={"x": 10.5 / 13 * width, "y": 60})
    expect(page.locator("#sweep-frame")).to_have_value("10")


@pytest.mark.slow
def test_print_is_dark_on_white(page):
    page.emulate_media(media="print")
    for name, value in (("background-color", "rgb(255, 255, 255)"), ("color", "rgb(17, 17, 17)")):
        expect(page.locator("body")).to_have_css(name, value)
    expect(page.locator("#figure-a .picture")).to_be_visible()
    expect(page.locator("#slider-size-found")).to_be_visible()
    for hidden in ("#actions", "#sky", "#classes button >> nth=0", "#message"):
        expect(page.locator(hidden)).to_be_hidden()
    page.emulate_media(media="screen")


# On screens of all kinds


def place_of(page, selector):
    """Return left, top, right and bottom of an element in the window."""
    box = page.locator(selector).bounding_box()
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def test_the_picture_stays_beside_the_controls(page):
    """On a small screen, at 200 % zoom, and on phones in landscape."""
    sizes = [(1024, 768), (720, 450), (844, 390), (667, 375)]
    for (width, height), slider in itertools.product(sizes, ("size", "ellipticity")):
        page.set_viewport_size({"width": width, "height": height})
        page.locator(f"#slider-{slider}").scroll_into_view_if_needed()
        left, top, right, bottom = place_of(page, "#figure-a .picture")
        assert left >= 0 and top >= 0 and bottom <= height and right < place_of(page, "#controls")[0]
        assert bottom - top > min(0.42 * width, 0.6 * height)  # as large as the window lets it be
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_phone_gives_the_picture_two_fifths_of_its_height(page):
    for width, height in ((390, 844), (360, 640)):
        page.set_viewport_size({"width": width, "height": height})
        page.locator("#slider-ellipticity").scroll_into_view_if_needed()
        _, top, _, bottom = place_of(page, "#pictures")
        assert top >= 0 and bottom - top <= 0.4 * height + 1
        _, top, _, end = place_of(page, "#figure-a .picture")
        assert top >= 0 and end - top > 0.29 * height
        assert end < place_of(page, "#figure-a figcaption")[3] <= bottom
    expect(page.locator("#pictures")).to_have_css("background-color", re.compile(r"^rgb\("))  # nothing shines through
    # What the keyboard comes to is not hidden below the bar.
    page.locator("#slider-size").focus()
    assert place_of(page, "#slider-size")[1] >= bottom - 1


@pytest.mark.slow
def test_a_swipe_over_a_slider_scrolls(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address + START)
    page.wait_for_selector(page_tests.PICTURE)
    finger = context.new_cdp_session(page)
    slider = page.locator("#slider-brightness")

    def swipe(right, down):
        slider.scroll_into_view_if_needed()
        left, top, end, bottom = place_of(page, "#slider-brightness")
        x, y = left + 0.8 * (end - left), (top + bottom) / 2
        places = [(x + part * right / 6, y + part * down / 6) for part in range(7)]
        for kind, place in zip(["touchStart"] + 6 * ["touchMove"], places, strict=True):
            points = [{"x": place[0], "y": place[1]}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    before = page.evaluate("scrollY")
    swipe(0, -150)
    page.wait_for_function("before => scrollY > before + 60", arg=before)
    expect(slider).to_have_value("0.3")
    swipe(-100, 0)
    page_tests.wait_until(page, lambda: slider.input_value() not in ("0.3", ""))
    assert float(slider.input_value()) < 0.45
    swipe(0, 0)  # a tap
    page_tests.wait_until(page, lambda: float(slider.input_value()) > 0.45)
    context.close()


@pytest.mark.slow
def test_a_drag_of_a_slow_model_sees_previews_that_are_called_so(page, address):
    asked = []

    def slow(route):
        facts = route.fetch().json()
        facts["models"][1]["preview_steps"] = 1  # the untrained one has but two steps
        route.fulfill(json=facts)

    def note(route):
        asked.append(parse_qs(urlsplit(route.request.url).query))
        route.continue_()

    page.route("**/api/model", slow)
    page.route("**/api/image.png?*", note)
    page.goto(f"{address}{START}&model=diffusion")
    page_tests.wait_shown(page, model="diffusion")
    said = expect(page.locator("#figure-a .support"))
    said.to_have_text("like real galaxies")
    page.evaluate(page_tests.COLLECT_LABELS, "#figure-a .support")
    page_tests.pull(
        page, "size", 0.5, halfway=lambda: page.wait_for_function("() => labels.some((l) => /^preview, /.test(l))")
    )
    value = f"{float(page.input_value('#slider-size')):.3f}"
    said.not_to_have_text(re.compile("preview|drawing"))
    page_tests.wait_shown(page, size=value)
    assert "preview" not in page_tests.query_shown(page)
    assert {tuple(one.get("solver_steps", ())) for one in asked} == {(), ("1",)}
    assert "solver_steps" not in asked[0] and "solver_steps" not in asked[-1]
