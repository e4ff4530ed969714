"""The astronomer's part of the page: native pixels and their values, stretches, the light profile, telescopes."""

from __future__ import annotations

import base64
import io
import re
import threading

import numpy as np
import pytest
from astropy.io import fits

from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel
from tests.generation.painted import light_painting_sampler

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, expect = page_tests.browser, page_tests.expect
QUERY = "morphology=disc&magnitude_r=19.50&color_g_r=0.70&size_arcsec=1.28&redshift=0.40&seed=7"


@pytest.fixture(scope="module")
def page(browser):
    """One page, of a generator that paints light, before a server in this process."""
    from werkzeug.serving import make_server

    models = [ServedModel(light_painting_sampler(), "painted/latest.pt", 7)]
    server = make_server("127.0.0.1", 0, create_app(models), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    page, faults = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce"), []
    page.set_default_timeout(page_tests.PATIENCE)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/?{QUERY}")
    page.wait_for_selector(page_tests.PICTURE)
    yield page
    page.close()
    server.shutdown()
    thread.join()
    server.server_close()
    assert faults == []


def ask(page, name, *arguments):
    """Call a function of cube.js with values that JSON has."""
    return page.evaluate(
        "async ([name, args]) => (await import(new URL('cube.js', location.href)))[name](...args)",
        [name, list(arguments)],
    )


@pytest.mark.parametrize("kind", ["display", "flux"])
def test_a_cube_is_what_astropy_wrote(page, kind):
    random = np.random.default_rng(3)
    header = fits.Header({"LONG": "it's" * 30, "NOISE1": 2.5, "NOISE2": 1e-3, "PIXSCALE": 0.25})
    if kind == "display":
        data, header["PLANES"] = random.integers(0, 256, (3, 6, 6), dtype=np.uint8), "R,G,B"
    else:
        data, header["BANDS"] = random.normal(size=(2, 6, 6)).astype(np.float32), "g,Ks"
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(data, header), fits.ImageHDU(np.ones((4, 4)))]).writeto(file)
    cube = page.evaluate(
        """async (text) => {
            const { readCube } = await import(new URL("cube.js", location.href));
            const cube = readCube(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
            return { ...cube, planes: cube.planes.map((plane) => [...plane]) };
        }""",
        base64.b64encode(file.getvalue()).decode(),
    )
    assert cube["side"] == 6 and cube["names"] == (["R", "G", "B"] if kind == "display" else ["g", "Ks"])
    np.testing.assert_array_equal(np.array(cube["planes"]).reshape(data.shape), data[:, ::-1])  # the lowest row first
    assert (cube["noise"], cube["pixelScale"]) == ((None, None) if kind == "display" else ([2.5, 1e-3], 0.25))


def test_the_light_profile_is_that_of_an_exponential_disc(page):
    """exp(-r / 6) along the major axis of an ellipse of axis ratio 0.5, at 30 degrees, off the middle."""
    side, (x, y), angle = 64, (0.52, 0.47), np.radians(30)
    column, row = np.meshgrid(np.arange(side) + 0.5 - side * x, np.arange(side) + 0.5 - side * y)
    along, across = column * np.cos(angle) + row * np.sin(angle), row * np.cos(angle) - column * np.sin(angle)
    light = 100 * np.exp(-np.hypot(along, across / 0.5) / 6)
    ellipse = {"x": x, "y": y, "semi_major": 0.2, "semi_minor": 0.1, "angle": 30}
    rings = ask(page, "profile", light.ravel().tolist(), side, ellipse)
    assert len(rings) == 30  # up to the nearest edge, 0.47 of 64 pixels
    radius, value = np.array([[ring["radius"], ring["value"]] for ring in rings]).T
    np.testing.assert_allclose(value, 100 * np.exp(-radius / 6), rtol=0.02)
    # Noise of 5 leaves an error of 5 / sqrt(pixels in the ring), of which there are about pi r.
    noise = np.random.default_rng(1).normal(0, 5, (side, side))
    rings = ask(page, "profile", noise.ravel().tolist(), side, ellipse)
    far = [(ring["radius"], ring["error"]) for ring in rings if 10 < ring["radius"] < 28]
    assert np.mean([error * np.sqrt(np.pi * radius) for radius, error in far]) == pytest.approx(5, rel=0.1)
    # 1000 nJy a pixel of 0.04 square arcseconds: AB is -2.5 log10(f / 3631 Jy).
    brightness = ask(page, "surfaceBrightness", 1000, 0.2)
    assert brightness == pytest.approx(-2.5 * np.log10(1000e-9 / 0.04 / 3631), abs=0.002)
    assert ask(page, "surfaceBrightness", -1, 0.2) is None


def test_stretches(page):
    """A straight line from 0 to 255 is the display itself; inverted it is the negative; curves keep the colours."""
    planes = np.random.default_rng(4).integers(0, 256, (3, 40)).tolist()
    straight = {"stretch": "linear", "black": 0, "white": 255, "isInverted": False}

    def shown(view, which=planes):
        pixels = page.evaluate(
            "async (args) => [...(await import(new URL('cube.js', location.href))).stretched(...args)]", [which, view]
        )
        return np.array(pixels).reshape(-1, 4)

    np.testing.assert_array_equal(shown(straight)[:, :3].T, planes)
    np.testing.assert_array_equal(shown({**straight, "isInverted": True})[:, :3].T, 255 - np.array(planes))
    grey = shown({**straight, "stretch": "square root"}, [[0, 64, 255, -3, 400]])
    np.testing.assert_allclose(grey[:, 0], [0, np.sqrt(64 / 255) * 255, 255, 0, 255], atol=0.51)
    assert (grey[:, 0] == grey[:, 2]).all() and (grey[:, 3] == 255).all()
    curved = shown({**straight, "stretch": "asinh", "white": 100}, [[10, 200], [20, 400], [30, 600]])
    np.testing.assert_allclose(curved[:, 0] / curved[:, 2], 1 / 3, atol=0.01)
    assert curved[0, 1] == pytest.approx(255 * np.arcsinh(10 * 0.2) / np.arcsinh(10), abs=0.51)
    assert ask(page, "scaleBar", {"side": 64, "pixelScale": 0.2}) == {"pixels": 10, "words": "2″"}
    assert ask(page, "scaleBar", {"side": 64, "pixelScale": None}) == {"pixels": 20, "words": "20 pixels"}


def test_pixels_are_read_by_keyboard_and_by_pointer(page):
    base = page.url.partition("?")[0]
    cube = fits.getdata(io.BytesIO(page.request.get(f"{base}api/fits?{QUERY}&model=gan").body()))

    def words(x, y):
        values = ", ".join(f"{b} {cube[k, y - 1, x - 1]:.1f}".replace("-", "−") for k, b in enumerate("griz"))
        return f"x {x}, y {y}: {values} nJy"

    page.keyboard.press("i")
    picture, reading = page.get_by_role("img", name="Native pixels"), page.locator("#pixel-reading")
    expect(reading).to_contain_text("64 × 64 native pixels")
    picture.focus()
    picture.press("ArrowUp")
    expect(reading).to_have_text(words(33, 32))
    picture.press("ArrowUp")
    picture.press("Shift+ArrowRight")
    expect(reading).to_have_text(words(38, 33))
    box = picture.bounding_box()
    page.mouse.move(box["x"] + 0.5 / 64 * box["width"], box["y"] + 63.5 / 64 * box["height"])
    expect(reading).to_have_text(words(1, 1))
    # Half of the light within 1.28 arcseconds of a round galaxy, whose scale length that is over 1.678.
    expect(page.locator("#profile-words")).to_contain_text(re.compile(r"half of the light lies within 1\.[23]\d″"))
    look = "one => one.toDataURL()"
    seen = {picture.evaluate(look)}
    for name, value in (("Plane", "r"), ("Stretch", "linear")):
        page.get_by_role("combobox", name=name).select_option(label=value)
        seen.add(picture.evaluate(look))
    page.get_by_role("checkbox", name="Invert").check()
    seen.add(picture.evaluate(look))
    page.get_by_role("slider", name="White level").fill("0.4")
    seen.add(picture.evaluate(look))
    assert len(seen) == 5
    expect(page).to_have_url(re.compile("inspect=1"))


def test_telescopes_side_by_side(page):
    if page.locator("#telescopes").is_hidden():
        page.get_by_role("button", name="Inspect pixels").click()
    for label, side in (("SDSS", 33), ("LSST", 64), ("Euclid VIS", 128), ("HST (COSMOS)", 107)):
        expect(page.get_by_role("img", name=f"As {label} sees it, {side} × {side} pixels")).to_be_visible()
    expect(page.locator("#telescopes figure", has_text="HST")).to_contain_text(
        "pixels binned 4 × 4 to 0.12″: the galaxies’ light has 0.1″ pixels"
    )
    expect(page.locator("#telescopes")).not_to_contain_text("binned 1")
    lsst = page.locator("#telescopes figure", has_text="LSST")
    expect(lsst).to_contain_text("g, r, i, z; 2400 to 5520 s a band, PSF 0.77 to 0.86″")
    with page.expect_response(re.compile("telescope.png.*exposure=60&survey=LSST")):
        page.get_by_role("combobox", name="Exposure").select_option(label="1 minute")
    expect(lsst).to_contain_text("60 s a band")
    expect(page.locator("#telescopes")).not_to_have_class(page_tests.STALE)
    assert page_tests.faults_of(page) == []
    for width in (390, 1024):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
