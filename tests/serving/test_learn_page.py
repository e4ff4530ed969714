"""The class mode in a browser, before a server in this process that draws with the released GAN."""

from __future__ import annotations

import json
import re
import threading

import pytest

from galaxies.serving.application import create_app
from galaxies.serving.models import load_models
from tests.conftest import ROOT

page_tests = pytest.importorskip("tests.serving.test_page", reason="playwright is not installed")
pytestmark = page_tests.pytestmark
browser, expect, faults_of = page_tests.browser, page_tests.expect, page_tests.faults_of
TEXTS = {
    name: json.loads((ROOT / "frontend" / "languages" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("en", "de", "es")
}
EN = TEXTS["en"]
LABELS = {name: EN[f"class_{name}"] for name in ("spiral", "elliptical", "merger", "edge-on")}
LESSON = "learn?lesson=1.type-sizes-make.2.size-brightness-round.en.simple.42.gan"


@pytest.fixture(scope="module")
def address():
    """Address of a server in this process, of the GAN that comes with the program."""
    from werkzeug.serving import make_server

    models = load_models([ROOT / "checkpoints" / "released" / "gan" / "generator.safetensors"], "cpu")
    server = make_server("127.0.0.1", 0, create_app(models), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def open_page(browser, address):
    """Open the class mode by `open_page(path)`; nothing may have been complained of in the console at the end."""
    contexts, complaints = [], []

    def open_page(path=LESSON, width=1280, height=900, ready=True, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", locale="en-GB", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(page_tests.PATIENCE)
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + path)
        if ready:
            expect(page.get_by_role("heading", level=1)).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert complaints == []


def start(page, activity):
    page.get_by_role("button", name=f"Start: {EN[f'activity_{activity}']}").click()
    expect(page.get_by_role("heading", name=EN[f"question_{activity}"])).to_be_focused()


def test_types_are_told_apart_with_a_reason_at_once(open_page):
    page = open_page()
    expect(page.get_by_role("heading", level=1)).to_have_text("Lesson 42")
    with page.expect_request(re.compile("/api/image.png")) as asked:
        start(page, "type")
    name = re.search("morphology=([a-z-]+)", asked.value.url)[1]
    answers = page.get_by_role("group", name=EN["question_type"]).get_by_role("button")
    expect(answers).to_have_text(list(LABELS.values()))
    expect(page.get_by_role("img", name=EN["picture"])).to_have_js_property("complete", True)
    assert name not in page.locator("#task").inner_html()  # the answer is not written in the page
    page.get_by_role("button", name="Hint").click()
    expect(page.locator("#feedback")).to_contain_text("How round")
    page.get_by_role("button", name=LABELS[name], exact=True).click()
    expect(page.locator("#feedback")).to_contain_text(f"{EN['right']} {EN[f'is_{name}']}")
    expect(page.locator("#score")).to_have_text("Right so far: 1")
    expect(page.get_by_role("button", name="Next task")).to_be_focused()
    wrong = next(label for one, label in LABELS.items() if one != name)
    page.get_by_role("button", name=wrong, exact=True).dispatch_event("click")  # too late
    expect(page.locator("#score")).to_have_text("Right so far: 1")
