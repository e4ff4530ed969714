"""Galaxies between two classes in a real browser: the control, the link, and models that mix none."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from benchmarks.serving import write_untrained
from config_physics import Config
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel
from tests.serving.browsing import opened, serving

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, expect = page_tests.browser, page_tests.expect
REST = "size=0.15&brightness=0.3&ellipticity=0.2&redshift=0.1&seed=7"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a server of a GAN that mixes classes and a diffusion model that does not, both untrained."""
    folder = tmp_path_factory.mktemp("soft")
    configs = {
        "gan": Config(width=4, latent_dim=8, soft_classes=True),
        "diffusion": Config(width=4, diffusion=True, solver_steps=2),
    }
    for name, config in configs.items():
        write_untrained(folder / f"{name}.pt", config)
    models = [ServedModel.load(folder / f"{name}.pt", "cpu") for name in configs]
    with serving(create_app(models)) as address:
        yield address


def asked_by(page) -> str:
    return parse_qs(urlsplit(page.url).query)["morphology"][0]


def picture_of(page) -> str:
    return parse_qs(page.locator(page_tests.PICTURE).get_attribute("data-query"))["morphology"][0]


def test_a_galaxy_leans_toward_a_second_class_and_back(browser, address):
    with opened(browser, f"{address}?morphology=spiral&{REST}", page_tests.PICTURE, page_tests.PATIENCE) as page:
        choice, slider, caption = (
            page.locator("#second-class"),
            page.locator("#second-share"),
            page.locator("#figure-a .class"),
        )
        expect(choice).to_be_visible()
        expect(slider).to_be_disabled()
        assert [o.inner_text() for o in choice.locator("option").all()] == [
            "no other class",
            "Elliptical",
            "Merger",
            "Edge-on",
        ]
        choice.select_option("elliptical")
        page.wait_for_url(re.compile("spiral%3A0.7%2Celliptical%3A0.3"))
        expect(caption).to_have_text("Spiral with 30 % elliptical")
        slider.fill("0.45")
        page.wait_for_url(re.compile("spiral%3A0.55%2Celliptical%3A0.45"))
        expect(page.locator("#second-reading")).to_have_text("45 %")
        expect(page.locator(page_tests.PICTURE)).to_have_attribute(
            "data-query", re.compile("spiral%3A0.55%2Celliptical%3A0.45")
        )
        assert asked_by(page) == picture_of(page) == "spiral:0.55,elliptical:0.45"
        expect(page.locator("#figure-a .verdict")).to_have_text(
            re.compile("^(Real|Few real|No real) spiral galaxies have")
        )
        page.locator("#classes button[data-choice=merger]").click()
        page.wait_for_url(re.compile("merger%3A0.55%2Celliptical%3A0.45"))
        page.locator("#classes button[data-choice=elliptical]").click()  # which is its second class
        page.wait_for_url(re.compile("morphology=elliptical&"))
        expect(slider).to_be_disabled()
        page.go_back()
        page.wait_for_url(re.compile("merger%3A0.55"))
        expect(choice).to_have_value("elliptical")


def test_a_link_holds_a_mixture(browser, address):
    link = f"{address}?morphology={quote('elliptical:0.4,spiral:0.6')}&{REST}"
    with opened(browser, link, page_tests.PICTURE, page_tests.PATIENCE) as page:
        expect(page.locator("#second-class")).to_have_value("elliptical")
        expect(page.locator("#second-share")).to_have_value("0.4")
        expect(page.locator("#classes button[aria-pressed=true]")).to_have_attribute("data-choice", "spiral")
        page.wait_for_url(re.compile("spiral%3A0.6%2Celliptical%3A0.4"))
        expect(page.locator(page_tests.PICTURE)).to_have_attribute("data-query", re.compile("spiral%3A0.6"))
        href = page.locator("#fits").get_attribute("href")
        assert parse_qs(urlsplit(href).query)["morphology"] == ["spiral:0.6,elliptical:0.4"]
        page.locator("#models button[data-choice=diffusion]").click()
        page.wait_for_url(re.compile("morphology=spiral&"))
        expect(page.locator("#second")).to_be_hidden()


@pytest.mark.parametrize(
    ("text", "model", "asked", "note"),
    [
        (
            "spiral:0.5,merger:0.3,elliptical:0.2",
            "gan",
            "spiral:0.625,merger:0.375",
            "mixes 3 classes, and the page two",
        ),
        (
            "spiral:0.7,elliptical:0.3",
            "diffusion",
            "spiral",
            "this model was trained on one class a galaxy: spiral is taken",
        ),
        ("spiral:0.7,ring:0.3", "gan", "spiral", "The link names the class ring, which is not here."),
        (
            "spiral:0.7,elliptical:0.7",
            "gan",
            "spiral",
            "The link names the class spiral:0.7,elliptical:0.7, which is not here.",
        ),
    ],
)
def test_a_link_that_asks_for_more_is_told_so(browser, address, text, model, asked, note):
    link = f"{address}?morphology={quote(text)}&model={model}&{REST}"
    with opened(browser, link, page_tests.PICTURE, page_tests.PATIENCE) as page:
        expect(page.locator("#message")).to_contain_text(note)
        assert picture_of(page) == asked
