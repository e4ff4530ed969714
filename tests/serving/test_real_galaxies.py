"""Real galaxies beside invented ones: which are nearest, whom they are owed to, and what the page shows of them."""

from __future__ import annotations

import base64
import io
import re
import threading

import numpy as np
import pytest
from PIL import Image

import app
from galaxies.common.errors import UserError
from galaxies.serving.application import create_app
from galaxies.serving.models import load_models
from galaxies.serving.real_galaxies import RealGalaxies

CREDIT = "Survey of the Sky (Doe et al. 2001)"


def few(**changes) -> RealGalaxies:
    """Seven spirals, one elliptical, and a spiral of which nothing is known."""
    sizes = np.array([0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.12, np.nan], np.float32)
    brightness = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.4, np.nan], np.float32)
    images = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)
    given = {
        "images": images, "bands": ("R", "G", "B"), "noise": None,
        "object_ids": [f"id{k}" for k in range(9)],
        "morphologies": np.array(["spiral"] * 7 + ["elliptical", "spiral"], object),
        "values": {"size": sizes, "brightness": brightness},
        "credit": CREDIT,
    }  # fmt: skip
    return RealGalaxies(**{**given, **changes})


def test_the_nearest_of_the_class():
    """The spread of the sizes is 1.4826 x 0.02, and that of brightness ten times as much."""
    found = few().nearest("spiral", {"size": 0.131})
    assert [row for row, _ in found] == [3, 4, 2, 5]
    np.testing.assert_allclose(
        [distance for _, distance in found], np.array([0.001, 0.009, 0.011, 0.019]) / (1.4826 * 0.02), rtol=1e-4
    )
    ((row, distance), *_) = few().nearest("spiral", {"size": 0.13, "brightness": 0.81, "redshift": 0.1})
    assert row == 5  # 0.02 and 0.11 off
    assert distance == pytest.approx(np.hypot(0.02 / (1.4826 * 0.02), 0.11 / (1.4826 * 0.2)), rel=1e-4)
    assert [row for row, _ in few().nearest("elliptical", {"brightness": 0.9})] == [7]
    assert few().nearest("merger", {"size": 0.1}) == few().nearest("spiral", {}) == []
    assert few().nearest("spiral", {"redshift": 0.1}) == []


def test_pictures_of_flux_are_composites():
    """The first row of flux is the lowest, and a bright red source is red."""
    images = np.zeros((9, 3, 8, 8), np.float32)
    images[:, 2, 0, 1] = 1000
    real = few(images=images, bands=("g", "r", "i"), noise=(1.0, 1.0, 1.0))
    picture = np.asarray(Image.open(io.BytesIO(real.picture(2)))).astype(int)
    assert picture.shape == (8, 8, 3) and picture[7, 1, 0] > 200 > picture[7, 1, 2] and picture[0].max() < 60


def test_a_set_needs_a_credit_unless_it_is_a_mock_survey(dataset_path, data, tmp_path, monkeypatch):
    assert app._real_galaxies(None, "") is None
    with pytest.raises(UserError, match="--real-credit"):
        app._real_galaxies(None, CREDIT)
    with pytest.raises(UserError, match="holds no prepared dataset"):
        app._real_galaxies(tmp_path, CREDIT)
    with pytest.raises(UserError, match="somebody's"):
        app._real_galaxies(dataset_path, "")
    real = app._real_galaxies(dataset_path, CREDIT)
    assert (real.credit, real.origin, real.bands) == (CREDIT, "real", ("r", "g", "b"))
    row = 5
    wanted = {name: float(data.catalogue[name][row]) for name in ("size", "brightness")}
    ((found, distance), *_) = real.nearest(data.catalogue["morphology"][row], wanted)
    assert (found, distance) == (row, pytest.approx(0, abs=1e-5))
    assert real.object_ids[row] == data.catalogue["object_id"][row]
    assert np.array_equal(real.images[row], data.images[row])
    monkeypatch.setitem(data.manifest, "source", "mock survey of seed 3")
    monkeypatch.setattr("galaxies.datasets.prepared.PreparedDataset.open", lambda path, verify: data)
    assert app._real_galaxies(dataset_path, "").origin == "mock"
    monkeypatch.setitem(data.manifest, "source", "simulation: frames of a box")
    with pytest.raises(UserError, match="somebody's"):
        app._real_galaxies(dataset_path, "")
    simulated = app._real_galaxies(dataset_path, CREDIT)
    assert (simulated.describe().origin, simulated.describe().are_mock) == ("simulated", True)


@pytest.fixture(scope="module")
def client(untrained):
    return create_app(load_models([untrained["gan"]], "cpu"), real=few()).test_client()


def test_they_are_answered_with_their_pictures_and_credit(client, untrained):
    assert client.get("/api/model").json["real"] == {
        **{"count": 9, "credit": CREDIT},
        **{"are_mock": False, "origin": "real"},
    }
    answer = client.get("/api/nearest?morphology=spiral&size=0.131").json["galaxies"]
    assert [one["object_id"] for one in answer] == ["id3", "id4", "id2", "id5"]
    assert answer[0]["values"] == {"size": 0.13, "brightness": 0.5}
    picture = Image.open(io.BytesIO(base64.b64decode(answer[0]["picture"].removeprefix("data:image/png;base64,"))))
    assert picture.size == (8, 8) and picture.getpixel((1, 1)) == (3, 3, 3)
    assert client.get("/api/nearest?morphology=spiral").json == {"galaxies": []}
    assert client.get("/api/nearest?morphology=comet").status_code == 400
    bare = create_app(load_models([untrained["gan"]], "cpu")).test_client()
    assert bare.get("/api/model").json["real"] is None
    assert bare.get("/api/nearest?morphology=spiral&size=0.131").json == {"galaxies": []}


def test_the_page_shows_them_beside_the_picture(untrained):
    page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
    if page_tests.CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    from werkzeug.serving import make_server

    expect = page_tests.expect
    server = make_server("127.0.0.1", 0, create_app(load_models([untrained["gan"]], "cpu"), real=few()), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with page_tests.sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=page_tests.CHROMIUM, args=page_tests.QUIET)
            page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
            page.goto(f"http://127.0.0.1:{server.port}/?morphology=spiral&size=0.131")
            group = page.get_by_role("group", name="Nearest real galaxies")
            expect(group.get_by_role("img")).to_have_count(4)
            first = group.get_by_role("img", name="Real galaxy id3: Half-light radius 0.130, Surface brightness 0.500")
            expect(first).to_be_visible()
            assert first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
            expect(group).to_contain_text("0.03 off")
            expect(group).to_contain_text(f"{CREDIT}.")
            page.get_by_role("button", name="Merger", exact=True).click()
            expect(group).to_contain_text("None of the class is known by what was asked.")
            page.get_by_role("button", name=re.compile("^Half-light radius free")).click()
            expect(group).to_contain_text("All values are free: set one")
            expect(group).not_to_have_class(re.compile("stale"))
            assert page_tests.faults_of(page) == []
            browser.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
