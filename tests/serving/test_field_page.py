"""The page of a sky that can be moved about, in a browser."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, address, open_page, expect = (getattr(page_tests, n) for n in ("browser", "address", "open_page", "expect"))
PLACE = "field.html?sky=3&x=40&y=-25&zoom=1"
BUTTONS = "#galaxies button"


@pytest.fixture(scope="module")
def tab(browser, address):
    """One tab, small enough for few tiles to do, of a sky that is there."""
    page, faults = browser.new_page(viewport={"width": 500, "height": 400}, reduced_motion="reduce"), []
    page.set_default_timeout(page_tests.PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address + PLACE)
    settled(page)
    yield page
    page.close()
    assert faults == []


def settled(page):
    page.wait_for_selector(BUTTONS)
    expect(page.locator("#message")).to_be_empty()


# The page


def test_a_galaxy_can_be_chosen_and_changed_by_the_keyboard_alone(tab, address):
    tab.goto(address + PLACE)
    settled(tab)
    tab.locator("#view").focus()
    tab.keyboard.press("Tab")
    name = tab.evaluate("document.activeElement.ariaLabel")
    morphology, seed = re.fullmatch(r"(.+) galaxy, seed (\d+)", name).groups()
    tab.keyboard.press("Enter")
    card = tab.get_by_role("complementary", name="The galaxy that was chosen")
    expect(card.get_by_role("heading")).to_have_text(f"{morphology}, seed {seed}")
    expect(card.locator("dl")).not_to_contain_text("…")
    link = card.get_by_role("link", name="Open this galaxy")
    query = parse_qs(urlsplit(link.evaluate("link => link.href")).query)
    assert (query["morphology"], query["seed"], query["model"]) == ([morphology.lower()], [seed], ["gan"])
    assert page_tests.faults_of(tab) == []
    tab.keyboard.press("Escape")
    expect(card).to_be_hidden()
    assert tab.evaluate("document.activeElement.ariaLabel") == name
    tab.keyboard.press("Enter")
    link.click()
    page_tests.wait_shown(tab, morphology=morphology.lower(), seed=seed)
    assert set(page_tests.query_shown(tab)) == {"morphology", "seed", "model"}  # the rest is drawn as there


def test_a_galaxy_with_the_focus_is_never_covered(tab, address):
    tab.goto(address + PLACE)
    settled(tab)
    tab.locator("#view").focus()
    lowest = tab.locator("header").evaluate("header => header.getBoundingClientRect().bottom")
    middle = """() => {
        const { x, y, width, height } = document.activeElement.getBoundingClientRect();
        return [x + width / 2, y + height / 2];
    }"""
    for _ in range(6):
        tab.keyboard.press("Tab")
        settled(tab)
        tab.wait_for_timeout(100)
        x, y = tab.evaluate(middle)
        assert 0 < x < 500 and lowest <= y < 400


def test_dragging_moves_the_sky_and_the_link_brings_it_back(tab, address):
    tab.goto(address + PLACE)
    settled(tab)
    before = tab.locator("#view canvas").screenshot()
    tab.mouse.move(300, 300)
    tab.mouse.down()
    tab.mouse.move(200, 250, steps=4)
    tab.mouse.up()
    expect(tab).to_have_url(re.compile("x=140&y=25"))  # 100 pixels to the left, 50 up
    settled(tab)
    expect(tab.get_by_role("complementary", name="The galaxy that was chosen")).to_be_hidden()
    moved = tab.locator("#view canvas").screenshot()
    assert moved != before
    tab.reload()
    settled(tab)
    tab.wait_for_timeout(200)
    assert tab.locator("#view canvas").screenshot() == moved
    tab.keyboard.press("ArrowRight")
    expect(tab).to_have_url(re.compile("x=220&y=25"))
    tab.get_by_role("button", name="2 ×").click()
    expect(tab).to_have_url(re.compile("zoom=2"))
    tab.keyboard.press("ArrowDown")
    expect(tab).to_have_url(re.compile("x=220&y=65"))
    tab.get_by_role("button", name="Somewhere else").click()
    expect(tab).to_have_url(re.compile("x=0&y=0"))
    settled(tab)
    assert "sky=3&" not in tab.url


def test_a_busy_server_is_asked_again(tab, address):
    busy = [True]

    def refuse(route):
        if busy:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "busy"})
        else:
            route.continue_()

    tab.route("**/api/sky.png?*", refuse)
    tab.goto(address + PLACE)
    expect(tab.locator("#message")).to_contain_text("Trying again in 1 s")
    busy.clear()
    settled(tab)
    tab.unroute_all(behavior="wait")


def test_what_is_clicked_is_the_galaxy_that_lies_there(tab, address):
    tab.goto(address + PLACE)
    settled(tab)
    query = "sky=3&x=0&y=0&model=gan"
    tile = tab.evaluate("async (query) => (await fetch(`api/sky.json?${query}`)).json()", query)
    # The middle of the window, 500 x 400, is at 40, -25 of the sky.
    *_, faintest = [g for g in tile["galaxies"] if g["x"] < 260 and g["y"] < 150]  # which lies over the others
    tab.mouse.click(faintest["x"] - 40 + 250, faintest["y"] + 25 + 200)
    link = tab.get_by_role("link", name="Open this galaxy")
    expect(link).to_be_visible()
    found = parse_qs(urlsplit(link.evaluate("link => link.href")).query)
    assert found["morphology"] + found["seed"] == [faintest["morphology"], str(faintest["seed"])]
    seen = tab.locator("#view canvas").evaluate(
        """(canvas) => {
            return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
        }"""
    )
    assert len(set(seen[::4])) > 20  # a sky with grain and galaxies, and not a blank


def test_the_edge_of_the_sky_is_the_end_of_the_way(tab, address):
    tab.goto(address + "field.html?sky=3&x=99999999&y=-99999999")
    settled(tab)
    tab.locator("#view").focus()
    tab.keyboard.press("ArrowRight")
    expect(tab).to_have_url(re.compile(r"x=262143&y=-262144"))
    settled(tab)


@pytest.fixture(scope="module")
def address_of_light():
    from galaxies.serving.application import create_app
    from galaxies.serving.models import ServedModel
    from tests.generation.painted import light_painting_sampler
    from tests.serving.browsing import serving

    with serving(create_app([ServedModel(light_painting_sampler(), "painted/latest.pt", 7)])) as address:
        yield address


def test_a_sky_of_light_is_seen_through_the_telescope_that_is_chosen(browser, address_of_light):
    page, faults = browser.new_page(viewport={"width": 320, "height": 240}), []
    page.set_default_timeout(page_tests.PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{address_of_light}field.html?sky=2&x=170&y=170&zoom=2")  # within one tile, and of SDSS too
    settled(page)
    chosen = page.get_by_role("group", name="Telescope").get_by_role("button", pressed=True)
    expect(chosen).to_have_text("LSST")
    page.get_by_role("button", name="SDSS").click()
    expect(page).to_have_url(re.compile("x=86&y=86.*survey=SDSS"))  # 0.2 / 0.396 of the pixels
    expect(chosen).to_have_text("SDSS")
    settled(page)
    button = page.locator(BUTTONS).first
    button.focus()
    page.keyboard.press("Enter")
    card = page.get_by_role("complementary", name="The galaxy that was chosen")
    expect(card.locator("dl")).to_contain_text("mag")
    query = parse_qs(urlsplit(card.get_by_role("link").evaluate("link => link.href")).query)
    assert {"magnitude_r", "size_arcsec", "redshift", "seed", "morphology"} <= set(query)
    page.close()
    assert faults == []
