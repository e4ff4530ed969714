"""The page of a run of flux in a real browser: its own sliders and classes, units, rings in arcseconds, downloads."""

from __future__ import annotations

import re
from urllib.request import urlopen

import pytest
import torch

from galaxies.datasets.population import Population
from galaxies.generation.sampler import GalaxySampler
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel
from tests.generation.painted import painting_sampler
from tests.serving.browsing import opened, serving

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, expect = page_tests.browser, page_tests.expect


@pytest.fixture(scope="module")
def address():
    """Address of a server in this process, whose generator paints what it is told."""
    with serving(create_app([ServedModel(painting_sampler(), "painted/latest.pt", 7)])) as address:
        yield address


@pytest.fixture
def page(browser, address):
    url = f"{address}?morphology=disc&magnitude_r=19.5&color_g_r=0.7&size_arcsec=1.28&redshift=0.4&seed=7"
    with opened(browser, url, page_tests.PICTURE, page_tests.PATIENCE) as page:
        yield page


def test_sliders_classes_and_readings_are_those_of_the_run(page, address):
    expect(page.locator("#remark")).to_contain_text("Also measured: magnitude g 20.")
    assert page.locator(".gauge label").all_text_contents() == [
        "Magnitude r",
        "Color g − r",
        "Half-light radius",
        "Redshift",
    ]
    assert page.locator(".gauge small").all_text_contents() == ["mag", "mag", "arcsec", ""]
    slider = page.locator("#slider-size_arcsec")
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["0.4", "2"]
    expect(page.locator("#slider-magnitude_r-found")).to_contain_text("measured 19.")
    expect(page.locator("#slider-redshift-found")).to_have_text("not measured by photometry")
    assert page.locator("#classes button").all_inner_texts() == ["Disc", "Early type"]
    # Half of the light lies within 1.28 arcsec, a tenth of the frame of 64 pixels of 0.2 arcsec.
    # It is painted round, in the middle; the mean of an ellipse's semi-axes is the radius of the circle.
    ends = "one => ['cx', 'cy', 'rx', 'ry'].map((name) => Number(one.getAttribute(name)))"
    asked, found = (page.locator(f"#figure-a .rings .{name}").evaluate(ends) for name in ("asked", "found"))
    assert asked[:2] == found[:2] == pytest.approx([0.5, 0.5], abs=0.005)
    assert sum(asked[2:]) / 2 == pytest.approx(0.1)
    assert found[2:] == pytest.approx([0.1, 0.1], rel=0.1)
    for name, start in (("png", b"\x89PNG"), ("fits", b"SIMPLE"), ("csv", b"seed,")):
        with urlopen(address + page.locator(f"#{name}").get_attribute("href")) as answer:
            assert answer.read().startswith(start)
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_class_and_a_slider_change_the_request(page):
    page.locator("#classes button", has_text="Early type").click()
    expect(page.locator("#figure-a .class")).to_have_text("Early type")
    page.locator("#slider-magnitude_r").fill("21")
    expect(page.locator("#slider-magnitude_r-found")).to_contain_text("measured 2")
    expect(page).to_have_url(re.compile("morphology=early-type&magnitude_r=21.00"))


def test_one_class_is_no_choice(page):
    def one(route):
        facts = route.fetch().json()
        facts["models"][0]["classes"] = ["disc"]
        route.fulfill(json=facts)

    page.route("**/api/model", one)
    page.reload()
    page.wait_for_selector(page_tests.PICTURE)
    assert page.locator("#classes").is_hidden() and page.locator(".gauge").count() == 4


def test_numbers_have_minus_signs_and_a_mock_survey_is_not_called_real(browser):
    told = {"source": "mock survey of seed 11 as LSST sees it", "count": 400}
    sampler = painting_sampler(attribute_ranges=(18.0, 22.0, -1.0, 1.5, 0.4, 2.0, 0.0, 1.0))
    population = sampler.population
    colors = population.values * torch.tensor([1.0, 0.5, 1.0, 1.0]) - torch.tensor([0.0, 0.6, 0.0, 0.0])
    population = Population(population.classes, colors, sampler.attributes)
    sampler = GalaxySampler(sampler.network, sampler.config, population, sampler.engine)
    with serving(create_app([ServedModel(sampler, "painted/latest.pt", 7, told)])) as address:
        url = f"{address}?morphology=disc&magnitude_r=19.5&color_g_r=-0.40&size_arcsec=1.28&seed=7&inspect=1"
        with opened(browser, url, page_tests.PICTURE, page_tests.PATIENCE) as page:
            expect(page.locator("#slider-color_g_r-found")).to_contain_text(re.compile(r"measured −0\.[34]"))
            expect(page.locator("#slider-color_g_r-range")).to_contain_text("−0.")
            assert page.locator("#slider-color_g_r").get_attribute("aria-valuetext").startswith("−0.40 mag")
            assert page.get_by_label("Value of Color g − r").input_value() == "-0.40"  # as it can be typed
            assert "color_g_r=-0.40" in page.url
            page.locator("#sweep-attribute").select_option("color_g_r")
            page.locator("#sweep").scroll_into_view_if_needed()
            expect(page.locator("#sweep-words")).to_contain_text("like mock disc galaxies")
            words = page.evaluate("document.body.innerText")
            assert re.findall(r"(?<![\w.])-\d\S*", words) == []
            assert (
                re.findall(r"(?i)\breal\b", words.replace("Real or generated?", "")) == [] and "mock galaxies" in words
            )
