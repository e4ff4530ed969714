"""Sliders of a user's own columns in a real browser: in steps of their scales, and marked by what a picture tells."""

from __future__ import annotations

import re

import pytest

from benchmarks.serving import write_untrained
from config_physics import Config
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel
from tests.serving.browsing import opened, serving

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, expect = page_tests.browser, page_tests.expect

LINES = (
    'halpha_ew:label="H-alpha EW",unit="Angstrom",scale=asinh,softening=3.0,low=-3.0,high=200.0',
    'sfr:label="Star formation",unit="",scale=log,low=0.01,high=100.0',
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a server in this process, of a network that was never trained."""
    path = tmp_path_factory.mktemp("own") / "latest.pt"
    names = ("size", "halpha_ew", "sfr", "redshift")
    write_untrained(path, Config(width=4, latent_dim=8, attributes=names, attribute_definitions=LINES))
    sampler = ServedModel.load(path, "cpu").sampler
    model = ServedModel(sampler, "own/latest.pt", 7, told={"halpha_ew": 0.62, "sfr": 0.03})
    with serving(create_app([model])) as address:
        yield address


@pytest.fixture
def page(browser, address):
    url = f"{address}?morphology=spiral&size=0.15&halpha_ew=3&sfr=1&redshift=0.1&seed=7"
    with opened(browser, url, page_tests.PICTURE, page_tests.PATIENCE) as page:
        yield page


def test_a_slider_goes_in_equal_steps_of_its_scale(page):
    slider = page.locator("#slider-sfr")
    page.locator(".fold summary").click()
    assert slider.input_value() == "0.5"  # of a range from 0.01 to 100 on a logarithmic scale
    slider.fill("0.75")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^10 "))
    page.wait_for_url(re.compile("sfr=10&"))
    value = page.locator("[data-value=halpha_ew]")
    value.fill("-2.5")
    value.press("Enter")
    page.wait_for_url(re.compile("halpha_ew=-2.5&"))
    slider = page.locator("#slider-halpha_ew")
    # asinh(-2.5 / 3) = -0.758 between those of -1 and of 66.7, -0.881 and 4.893
    assert float(slider.input_value()) == pytest.approx(0.021, abs=0.001)


@pytest.mark.parametrize("name", [pytest.param("halpha_ew", marks=pytest.mark.slow), "sfr"])
def test_no_step_of_the_keyboard_is_lost_in_rounding(page, name):
    if name == "sfr":
        page.locator(".fold summary").click()
    slider = page.locator(f"#slider-{name}")
    slider.focus()
    for start in ("0", "0.45", "0.9"):
        slider.fill(start)
        for _ in range(12):
            before = slider.get_attribute("aria-valuetext")
            page.keyboard.press("ArrowRight")
            assert slider.get_attribute("aria-valuetext") != before


def test_what_a_picture_tells_is_said_and_read_out(page):
    told = page.locator("#slider-halpha_ew-told")
    expect(told).to_be_visible()
    expect(told).to_have_text("A picture tells of it: a network reads it with an R² of 0.62.")
    expect(page.locator(".fold summary")).to_have_text("Star formation, Redshift: not visible in a picture")
    page.locator(".fold summary").click()
    nothing = page.locator("#slider-sfr-told")
    expect(nothing).to_be_visible()
    expect(nothing).to_have_text("A picture tells nothing of it: a network reads it with an R² of 0.03.")
    described = page.locator("#slider-sfr").get_attribute("aria-describedby")
    assert described.split()[-1] == "slider-sfr-told"
    assert page.locator("#slider-redshift-told").is_hidden()  # of which nobody knows
    assert "told" not in page.locator("#slider-redshift").get_attribute("aria-describedby")
