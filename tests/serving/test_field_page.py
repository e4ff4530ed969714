"""The sky that can be moved about: its layout and pixels against what they shall be, and the page in a browser."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, address, open_page, expect = (getattr(page_tests, n) for n in ("browser", "address", "open_page", "expect"))
PLACE = "field.html?sky=3&x=40&y=-25&zoom=1"
BUTTONS = "#galaxies button"


@pytest.fixture(scope="module")
def tab(browser, address):
    """One tab, small enough for two squares to do, of a sky that is there."""
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


def told(page, script, argument=None):
    """What a function of the page's modules returns."""
    modules = "const layout = await import('./field_layout.js'), pixels = await import('./field_pixels.js');"
    return page.evaluate(f"async argument => {{ {modules} return ({script})(argument); }}", argument)


# Layout


def test_galaxies_depend_on_the_sky_and_the_place_alone(tab):
    classes = ["spiral", "elliptical", "merger", "edge-on"]
    script = "([sky, column, row, classes]) => layout.galaxiesOf(sky, column, row, classes)"
    places = ((1, 2, 3), (1, 2, 3), (1, 3, 2), (2, 2, 3))
    first, again, other, sky = (told(tab, script, [*place, classes]) for place in places)
    assert first == again
    assert first != other and first != sky
    assert all(1024 <= one["x"] < 1536 and 1536 <= one["y"] < 2048 for one in first)
    for name in classes:  # consecutive seeds, for one sheet to show them
        seeds = [one["seed"] for one in first if one["morphology"] == name]
        assert seeds == list(range(seeds[0], seeds[0] + len(seeds))) if seeds else True


def test_as_many_look_larger_as_in_a_space_filled_evenly(tab):
    script = """() => {
        const found = [];
        for (let row = -10; row < 10; row += 1)
            for (let column = -10; column < 10; column += 1)
                found.push(layout.galaxiesOf(5, column, row, ["spiral", "ring"]));
        return found.map((all) => all.map((one) => [one.x, one.y, one.scale, one.morphology === "ring" ? 1 : 0]));
    }"""
    squares = told(tab, script)
    counts = np.array([len(square) for square in squares])
    assert abs(counts.mean() - 22) < 5 * np.sqrt(22 / 400)
    assert 0.8 < counts.var() / 22 < 1.2  # Poisson's
    x, y, scale, ring = np.concatenate(squares).T
    for factor in (1.26, 2.0, 3.0):
        share = (scale > 0.36 * factor).mean()
        assert abs(share - factor**-3) < 5 * np.sqrt(factor**-3 / len(scale))
    assert scale.min() >= 0.36 and scale.max() <= 1.8
    assert abs(ring.mean() - 1 / 6) < 5 * np.sqrt(5 / 36 / len(ring))  # one in turn against five spirals
    for place in (x, y):  # evenly over the square
        parts = np.histogram(place % 512, 8, (0, 512))[0]
        assert (abs(parts - len(place) / 8) < 5 * np.sqrt(len(place) / 8)).all()


def test_squares_cover_what_is_in_sight_the_middle_first(tab):
    sight = {"left": -600, "right": 500, "top": 10, "bottom": 1100}
    found = told(tab, "(sight) => layout.tilesIn(sight)", sight)
    assert sorted(map(tuple, found)) == [(c, r) for c in (-2, -1, 0) for r in (0, 1, 2)]
    assert found[0] == [-1, 1]


# Pixels


def draw(tab, stamps, backdrop, side=48, seed=5):
    """Red, green and blue of a square (side, side, 3) on which stamps of `pictures` lie, each (n, n, 3) at (x, y)."""
    script = """({ stamps, backdrop, side, seed }) => {
        const galaxies = stamps.map(({ x, y, picture, n }) => {
            const image = new ImageData(n, n);
            picture.forEach((value, k) => { image.data[k] = value; });
            return { x, y, stamp: pixels.stampOf(image) };
        });
        const target = new ImageData(side, side);
        pixels.drawTile(target, galaxies, backdrop, seed);
        return { data: [...target.data], stamps: galaxies.map(({ stamp: { noise, sky } }) => ({ noise, sky })) };
    }"""
    given = []
    for (x, y), picture in stamps:
        opaque = np.concatenate([picture, np.full((*picture.shape[:2], 1), 255)], -1)
        given.append({"x": x, "y": y, "n": len(picture), "picture": opaque.astype(int).ravel().tolist()})
    found = told(tab, script, {"stamps": given, "backdrop": backdrop, "side": side, "seed": seed})
    return np.array(found["data"]).reshape(side, side, 4)[..., :3], found["stamps"]


def blob(n, level, peak, width=3.0, noise=0.0, seed=0):
    axis = np.arange(n) - (n - 1) / 2
    light = np.exp(-(axis**2 + axis[:, None] ** 2) / (2 * width**2))[..., None] * np.array(peak)
    return (light + level + noise * np.random.default_rng(seed).standard_normal((n, n, 3))).round().clip(0, 255)


def test_galaxies_are_laid_on_one_sky_and_add_up(tab):
    quiet = {"sky": [10, 12, 14], "noise": [0, 0, 0]}
    one, other = blob(32, 30, [120, 80, 40]), blob(24, 5, [60, 60, 60])
    found, stamps = draw(tab, [((20, 22), one), ((26, 22), other)], quiet)
    assert [stamp["sky"] for stamp in stamps] == [[30] * 3, [5] * 3]
    alone = [draw(tab, [each], quiet)[0] for each in (((20, 22), one), ((26, 22), other))]
    np.testing.assert_array_equal(found - np.array(quiet["sky"]), sum(a - np.array(quiet["sky"]) for a in alone))
    # Within 0.6 of half its width a galaxy is laid down as it is: its middle 16 pixels, at 12 to 28 along x.
    np.testing.assert_array_equal(alone[0][14:30, 12:28] - np.array(quiet["sky"]), one[8:24, 8:24] - 30)
    np.testing.assert_array_equal(found[0, 0], quiet["sky"])


def test_a_galaxy_over_the_rim_is_cut_off(tab):
    quiet = {"sky": [0, 0, 0], "noise": [0, 0, 0]}
    whole, _ = draw(tab, [((30, 24), blob(20, 0, [99, 99, 99]))], quiet)
    cut, _ = draw(tab, [((2, 24), blob(20, 0, [99, 99, 99]))], quiet)
    np.testing.assert_array_equal(cut[:, :10], whole[:, 28:38])


def test_the_noise_is_the_same_with_and_without_a_galaxy(tab):
    backdrop = {"sky": [100, 100, 100], "noise": [6, 6, 6]}
    stamps = [((64, 64), blob(96, 100, [0, 0, 0], noise=6.0))]  # of nothing but noise
    found, (stamp,) = draw(tab, stamps, backdrop, side=128)
    np.testing.assert_allclose(stamp["noise"], 6, rtol=0.15)  # of some 2,000 pixels in the corners
    inside, outside = found[40:88, 40:88].reshape(-1), np.concatenate([found[:14].ravel(), found[-14:].ravel()])
    for part in (inside, outside):
        assert abs(part.std() - 6) < 0.4 and abs(part.mean() - 100) < 0.4
    axis = np.arange(128) - 63.5
    radius = np.hypot(axis, axis[:, None]) / 48
    rim = found[(radius > 0.72) & (radius < 0.88)].ravel()  # where the galaxy's own has half gone
    assert abs(rim.std() - 6) < 6 * 5 / np.sqrt(2 * len(rim))
    again, _ = draw(tab, stamps, backdrop, side=128)
    np.testing.assert_array_equal(found, again)
    other, _ = draw(tab, stamps, backdrop, side=128, seed=6)
    assert (other[:14] != found[:14]).mean() > 0.5


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
    expect(card.locator("dl")).not_to_contain_text("measuring")
    link = card.get_by_role("link", name="Change this galaxy")
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

    tab.route("**/api/sheet.png?*", refuse)
    tab.goto(address + PLACE)
    expect(tab.locator("#message")).to_contain_text("Trying again in 1 s")
    busy.clear()
    settled(tab)
    tab.unroute_all(behavior="wait")
