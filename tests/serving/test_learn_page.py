"""The class mode in a browser, on examples that are made up here: what is looked at is what the page does with them."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import threading
from urllib.parse import parse_qsl, urlsplit

import pytest
from PIL import Image

from galaxies.serving.application import create_app
from galaxies.serving.models import load_models
from tests.conftest import ROOT
from tests.serving.browsing import serving

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
USUAL = {"size": 0.16, "brightness": 0.3, "ellipticity": 0.3, "redshift": 0.05}  # of what nobody has set


@pytest.fixture(scope="module")
def address(untrained):
    """Address of a server in this process, of a GAN that draws noise at once."""
    with serving(create_app(load_models([untrained["gan"]], "cpu"))) as address:
        yield address


def measured(query: dict[str, str]) -> dict:
    """What photometry would measure of a galaxy that has just what was asked for."""
    readings = {}
    for name, usual in USUAL.items():
        value = float(query.get(name, usual))
        seen = None if name == "redshift" else value
        readings[name] = {"requested": value, "measured": seen, "set": name in query, "supported": True}
    radius = readings["size"]["measured"]
    return {
        "morphology": query["morphology"],
        "seed": int(query["seed"]),
        "model": "gan",
        "attributes": readings,
        "ellipse": {"x": 0.5, "y": 0.5, "semi_major": 1.25 * radius, "semi_minor": 0.75 * radius, "angle": 20.0},
    }


def answer_measure(route):
    route.fulfill(json=measured(dict(parse_qsl(urlsplit(route.request.url).query))))


def answer_examples(route):
    """Examples whose seed tells the class to nobody but this file."""
    query = dict(parse_qsl(urlsplit(route.request.url).query))
    first, name = int(query["seed"]) + 100 * list(LABELS).index(query["morphology"]), query["morphology"]
    signs = {"arm_strength": 0.2, "arm_count": 2.0, "second_nucleus": 0.6, "ellipticity": 0.3}
    found = [
        {**measured({**query, "seed": first + k}), "signs": signs, "visible": ["arms"] if name == "spiral" else []}
        for k in range(int(query["count"]))
    ]
    route.fulfill(json={"examples": found})


@pytest.fixture
def open_page(browser, address):
    """Open the class mode by `open_page(path)`; nothing may have been complained of in the console at the end."""
    contexts, complaints = [], []

    def open_page(path=LESSON, width=1280, height=900, at=address, tolerated="\n", **options):
        context = browser.new_context(
            **{"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", "locale": "en-GB", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(page_tests.PATIENCE)
        page.on("console", lambda message: complaints.append(message.text) if tolerated not in message.text else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.route(re.compile("/api/examples"), answer_examples)
        page.route(re.compile("/api/measure"), answer_measure)
        page.goto(at + path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert complaints == []


def start(page, activity, texts=EN):
    page.get_by_role("button", name=texts["start_named"].format(activity=texts[f"activity_{activity}"])).click()
    expect(page.get_by_role("heading", name=texts[f"question_{activity}"])).to_be_focused()


def class_of(address: str) -> str:
    """Class of the galaxy of a picture's address."""
    return dict(parse_qsl(urlsplit(address).query))["morphology"]


def test_types_are_told_apart_with_a_reason_at_once(open_page):
    page = open_page()
    expect(page.get_by_role("heading", level=1)).to_have_text("Lesson 42")
    with page.expect_request(re.compile("/api/image.png")) as asked:
        start(page, "type")
    name = class_of(asked.value.url)
    answers = page.get_by_role("group", name=EN["question_type"]).get_by_role("button")
    expect(answers).to_have_text(list(LABELS.values()))
    expect(page.get_by_role("img", name=EN["picture"])).to_have_js_property("complete", True)
    assert name not in page.locator("#task").inner_html()  # the answer is not written in the page
    page.get_by_role("button", name="Hint").click()
    expect(page.locator("#feedback")).to_contain_text("How round: 70 of 100")
    page.get_by_role("button", name=LABELS[name], exact=True).click()
    expect(page.locator("#feedback")).to_contain_text(f"{EN['right']} {EN[f'is_{name}']}")
    expect(page.locator("#score")).to_have_text("Right so far: 1")
    expect(page.get_by_role("button", name="Next task")).to_be_focused()
    wrong = next(label for one, label in LABELS.items() if one != name)
    page.get_by_role("button", name=wrong, exact=True).dispatch_event("click")  # too late
    expect(page.locator("#score")).to_have_text("Right so far: 1")

    with page.expect_request(re.compile("/api/image.png")) as asked:
        page.reload()  # and goes on where it was
        page.get_by_role("button", name=f"Go on: {EN['activity_type']}").click()
    expect(page.locator("#place")).to_contain_text("Task 2 of 2")
    name = class_of(asked.value.url)
    other = next(one for one in LABELS if one != name)
    page.get_by_role("button", name=LABELS[other], exact=True).click()
    expect(page.locator("#feedback")).to_contain_text(f"{EN['wrong']} {EN[f'is_{name}']} {EN[f'not_{other}']}")
    page.get_by_role("button", name="See the result").click()
    expect(page.locator("#result-words")).to_contain_text("1 of 2 right.")


def test_a_lesson_is_done_to_its_end_by_keyboard_alone(open_page):
    page = open_page("learn?lesson=1.type-sizes-make.1.size-round.en.simple.7.gan")
    keys = page.keyboard

    def tab_to(name: str) -> None:
        for _ in range(30):
            keys.press("Tab")
            at = page.evaluate("(document.activeElement.ariaLabel || document.activeElement.innerText || '').trim()")
            if at.startswith(name):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{name} does not show its focus"
                return
        raise AssertionError(f"the keyboard does not reach {name}")

    tab_to("Start: Which type is it?")
    keys.press("Enter")
    expect(page.get_by_role("heading", name=EN["question_type"])).to_be_focused()
    tab_to("Merger")
    keys.press("Space")
    expect(page.get_by_role("button", name="See the result")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Done: Which type is it?")).to_be_focused()
    tab_to("Next: Put these by size")
    keys.press("Enter")
    expect(page.get_by_role("heading", name=EN["question_sizes"])).to_be_focused()
    for letter in "ABC":  # the fourth is what is left
        tab_to(f"Galaxy {letter}, no place yet")
        keys.press("Enter")
    expect(page.get_by_role("button", name="See the result")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Done: Put these by size")).to_be_focused()
    tab_to("Next: Make this galaxy")
    keys.press("Enter")
    expect(page.get_by_role("heading", name=EN["question_make"])).to_be_focused()
    for name in ("Size", "How round"):
        slider = page.get_by_role("slider", name=name)
        state = page.locator("output", has_text="target").nth(0 if name == "Size" else 1)
        expect(state).to_contain_text("yours")
        for _ in range(40):
            keys.press("Tab")
            if slider.evaluate("one => one === document.activeElement"):
                break
        target, yours = map(int, re.findall(r"\d+", state.inner_text()))
        step = float(slider.get_attribute("step"))
        for _ in range(round(abs(target - yours) / step)):
            keys.press("ArrowRight" if target > yours else "ArrowLeft")
        expect(state).to_contain_text("agrees")
    expect(page.locator("#feedback")).to_contain_text(EN["right"])
    expect(page.get_by_role("button", name="See the result")).to_be_focused()
    keys.press("Enter")
    expect(page.locator("#result-words")).to_contain_text(re.compile(r"The lesson is done: \d of 3 right in all"))
    tab_to("All activities")
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("button", name=re.compile("^Once more: "))).to_have_count(3)


def test_sizes_are_judged_by_the_radius_of_half_the_light(open_page):
    page = open_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "image.png" in request.url else None)
    start(page, "sizes")
    galaxies = page.get_by_role("group", name=EN["question_sizes"]).get_by_role("button")
    expect(galaxies).to_have_count(4)
    page_tests.wait_until(page, lambda: len(asked) == 4)
    sizes = [float(dict(parse_qsl(urlsplit(one).query))["size"]) for one in asked]
    order = sorted(range(4), key=sizes.__getitem__)
    galaxies.nth(order[0]).click()
    galaxies.nth(order[0]).click()  # taken back
    expect(page.get_by_role("button", name=re.compile("no place yet"))).to_have_count(4)
    for index in order[:3]:
        galaxies.nth(index).click()
    expect(page.locator("#feedback")).to_contain_text(EN["sizes_right"])
    letters = "".join(line[0] for line in page.locator(".measured li").all_inner_texts())
    assert letters == "".join("ABCD"[index] for index in order)
    radii = page.locator(".frame circle").evaluate_all("all => all.map((one) => Number(one.getAttribute('r')))")
    assert radii == pytest.approx(sizes)  # half of the semi-axes' sum
    page.get_by_role("button", name="Next task").click()
    page_tests.wait_until(page, lambda: len(asked) == 8)
    sizes = [float(dict(parse_qsl(urlsplit(one).query))["size"]) for one in asked[4:]]
    wrong = sorted(range(4), key=sizes.__getitem__, reverse=True)
    for index in wrong[:3]:
        galaxies.nth(index).click()
    right = ", ".join("ABCD"[index] for index in reversed(wrong))
    expect(page.locator("#feedback")).to_contain_text(EN["sizes_wrong"].format(order=right))
    expect(page.locator("#score")).to_have_text("Right so far: 1")


def test_sizes_can_be_told_without_seeing_the_pictures(open_page):
    """By names, roles and keys alone: half of the light is reached further out in a larger galaxy."""
    page = open_page()
    start(page, "sizes")
    page.get_by_text(EN["sizes_table_show"]).focus()
    page.keyboard.press("Enter")
    table = page.get_by_role("table", name=EN["sizes_table_caption"])
    expect(table.get_by_role("columnheader")).to_have_text(
        [EN["sizes_table_galaxy"], *(f"{d} %" for d in (4, 8, 12, 16, 20, 25, 30))]
    )
    expect(table.get_by_text("…")).to_have_count(0)
    distances, half = (4, 8, 12, 16, 20, 25, 30), {}
    for row in table.get_by_role("row").all()[1:]:
        letter = row.get_by_role("rowheader").inner_text()
        parts = [int(cell.inner_text().removesuffix(" %")) for cell in row.get_by_role("cell").all()]
        assert parts == sorted(parts) and parts[0] >= 0 and parts[-1] <= 100
        half[letter] = next(d - p / 1000 for d, p in zip(distances, parts, strict=True) if p >= 50)
        steps = "; ".join(
            EN["sizes_table_step"].format(part=p, distance=d) for p, d in zip(parts, distances, strict=True)
        )
        galaxy = page.get_by_role("button", name=re.compile(f"^Galaxy {letter},"))
        expect(galaxy).to_have_attribute("aria-description", EN["sizes_table_words"].format(steps=steps))
    assert faults_of(page) == []
    for letter in sorted(half, key=half.__getitem__)[:3]:
        page.get_by_role("button", name=re.compile(f"^Galaxy {letter},")).focus()
        page.keyboard.press("Enter")
    expect(page.locator("#feedback")).to_contain_text(EN["sizes_right"])


def test_the_growth_of_the_light_is_that_of_a_known_galaxy(open_page):
    """A Gaussian of width s has 1 - exp(-r^2 / 2 s^2) of its light within r; other galaxies keep their half."""
    page = open_page()
    script = """async ([radius, width, middle]) => {
        const { growthOf } = await import("./learn-growth.js");
        const data = new Uint8ClampedArray(4 * 256 * 256);
        for (let place = 0; place < 256 * 256; place += 1) {
            const x = (place % 256) + 0.5 - 256 * middle[0], y = Math.floor(place / 256) + 0.5 - 256 * middle[1];
            const away = (x * x + y * y) / (2 * 256 * 256 * width * width);
            data.fill(20 + 200 * Math.exp(-away), 4 * place, 4 * place + 3);
        }
        return growthOf({ width: 256, data }, { x: middle[0], y: middle[1] }, radius, [0.02, 0.05, 0.1, 0.15, 0.2]);
    }"""
    width = 0.08
    half = width * math.sqrt(2 * math.log(2))
    found = page.evaluate(script, [half, width, [0.47, 0.52]])
    expected = [100 * (1 - math.exp(-(r**2) / (2 * width**2))) for r in (0.02, 0.05, 0.1, 0.15, 0.2)]
    assert found == pytest.approx(expected, abs=1.5)
    larger = page.evaluate(script, [0.12, width, [0.5, 0.5]])  # as photometry says that sees fainter light
    assert larger[2] <= 50 <= larger[3] and larger == sorted(larger)
    assert page.evaluate(script, [0.12, 1e-9, [0.5, 0.5]]) == [0, 0, 0, 100, 100]  # nothing to see


def test_the_way_to_make_a_galaxy_is_shown_to_who_asks(open_page):
    page = open_page("learn?lesson=1.make.1.brightness.en.expert.3.gan")
    start(page, "make")
    sliders = page.get_by_role("slider")
    expect(sliders).to_have_count(1)
    expect(page.get_by_role("slider", name="Surface brightness")).to_be_visible()
    state = page.locator("output")
    expect(state).to_contain_text("target 0.300")
    expect(state).not_to_contain_text("agrees")
    page.get_by_role("button", name=EN["make_show"]).click()
    expect(state).to_have_text("target 0.300, yours 0.300: agrees")
    expect(page.locator("#feedback")).to_have_text(EN["make_shown"])
    page.get_by_role("button", name="See the result").click()
    expect(page.locator("#result-words")).to_contain_text("0 of 1 right. Change one slider at a time")


def test_real_galaxies_are_told_from_generated_ones_where_there_are_any(open_page):
    page = open_page("learn")
    expect(page.locator("#cards")).to_contain_text(EN["absent_real"])
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    pixel = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

    def with_real(route):
        facts = route.fetch().json()
        route.fulfill(
            json={**facts, "real": {"count": 9, "credit": "Some Sky Survey", "are_mock": False, "origin": "real"}}
        )

    def nearest(route):
        names = ["first", "second"]  # the same for all: each is shown once
        galaxies = [{"object_id": name, "distance": 0.1, "values": {}, "picture": pixel} for name in names]
        route.fulfill(json={"galaxies": galaxies})

    page.route(re.compile("/api/model"), with_real)
    page.route(re.compile("/api/nearest"), nearest)
    page.goto(page.url + "?lesson=1.real.2.size.en.simple.5.gan")
    start(page, "real")
    expect(page.locator("#credit")).to_have_text("Photographs: Some Sky Survey")
    assert faults_of(page) == []
    pictures = page.get_by_role("group", name=EN["question_real"]).locator("img")
    expect(pictures.nth(1)).to_have_attribute("src", re.compile("."))
    page_tests.wait_until(page, lambda: all(one.get_attribute("src") for one in pictures.all()))
    real = [one.get_attribute("src").startswith("data:") for one in pictures.all()].index(True)
    page.get_by_role("button", name=f"Galaxy {'AB'[real]}").click()
    expect(page.locator("#feedback")).to_contain_text(EN["right"])
    expect(page.locator("#feedback")).to_contain_text(f"{'AB'[real]} is the photograph")
    assert faults_of(page) == []
    page.get_by_role("button", name="Next task").click()
    expect(page.locator("#place")).to_contain_text("Task 2 of 2")

    # What "Which type is it?" has shown is known to be invented: the same lesson shows others here.
    seeds = {"type": set(), "real": set()}
    page.on("request", lambda one: seeds[activity].update(re.findall(r"image\.png.*[?&]seed=(\d+)", one.url)))
    activity = "type"
    page.goto(page.url.partition("?")[0] + "?lesson=1.type-real.4.size.en.simple.5.gan")
    start(page, activity)
    page_tests.wait_until(page, lambda: len(seeds["type"]) >= 2)  # the first task's, and what is fetched ahead
    page.get_by_role("button", name=EN["leave"]).click()
    activity = "real"
    start(page, activity)
    expect(pictures.nth(1)).to_have_attribute("src", re.compile("."))
    page_tests.wait_until(page, lambda: len(seeds["real"]) >= 1)
    assert not seeds["type"] & seeds["real"]


# Lessons


def test_a_teacher_makes_a_lesson_and_a_worksheet(open_page):
    page = open_page("learn", permissions=["clipboard-read", "clipboard-write"])
    page.locator("summary", has_text=EN["teacher_title"]).click()
    page.get_by_label(EN["activity_make"], exact=True).uncheck()
    page.get_by_label(EN["plan_count"]).fill("3")
    page.get_by_label(EN["plan_number"]).fill("11")
    page.get_by_label(EN["plan_language"]).select_option("de")
    page.get_by_label(EN["plan_words"]).select_option("expert")
    link = page.get_by_label(EN["plan_link"])
    expect(link).to_have_value(
        re.compile(r"learn\?lesson=1\.type-sizes\.3\.size-brightness-round\.de\.expert\.11\.gan$")
    )
    page.get_by_role("button", name=EN["plan_copy"]).click()
    expect(page.locator("#plan-remark")).to_have_text(EN["plan_copied"])
    assert page.evaluate("navigator.clipboard.readText()") == link.input_value()
    page.get_by_label(EN["plan_count"]).fill("0")
    expect(page.locator("#plan-remark")).to_have_text(EN["plan_bad_number"].format(tasks=10, numbers=9999))
    page.get_by_label(EN["plan_count"]).fill("3")
    page.get_by_role("button", name=EN["plan_sheet"]).click()
    german = TEXTS["de"]
    expect(page.get_by_role("heading", name=german["sheet_title"])).to_be_focused()
    expect(page.locator(".sheet-galaxies > li")).to_have_count(3)
    expect(page.locator(".sheet-rows > li")).to_have_count(3)
    expect(page.get_by_role("heading", name=german["sheet_answers"].format(number=11))).to_be_visible()
    assert faults_of(page) == []
    page.emulate_media(media="print")
    expect(page.get_by_role("banner")).to_be_hidden()
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(media="screen")

    page.goto(page.evaluate("document.getElementById('plan-link').value"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Stunde 11")
    assert page.evaluate("document.documentElement.lang") == "de"
    expect(page.locator("#cards li")).to_have_count(2)
    start(page, "sizes", german)


def test_a_lesson_is_the_same_in_whatever_order_it_is_done(open_page):
    seen = []
    for activities in (("type", "sizes", "make"), ("make", "sizes", "type")):
        page, shown = open_page(), {}
        for activity in activities:
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            start(page, activity)
            page.wait_for_load_state("networkidle")
            shown[activity] = sorted({one for one in asked if "image.png" in one})[:4]
            page.get_by_role("button", name=EN["leave"]).click()
        seen.append(shown)
    assert all(seen[0].values()) and seen[0]["type"] == seen[1]["type"]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("language", ["de", "es"])
def test_all_is_said_in_the_language_of_the_lesson(open_page, language):
    texts = TEXTS[language]
    page = open_page(f"learn?lesson=1.type-sizes-make.1.size-brightness-round.{language}.simple.42.gan")
    expect(page).to_have_title(texts["title"])
    start(page, "type", texts)
    page.get_by_role("button", name=texts["class_merger"], exact=True).click()
    expect(page.get_by_role("button", name=texts["finish"])).to_be_focused()
    assert not re.search(r"[a-z]+_[a-z]+|\{|undefined|NaN", page.locator("body").inner_text())
    # With the decimal comma of both languages: of the example's signs, and of what is asked for.
    page.goto(page.url.replace(".simple.42.", ".expert.43."))
    start(page, "type", texts)
    page.get_by_role("button", name=texts["hint"]).click()
    expect(page.locator("#feedback")).to_contain_text(re.compile(r"0,20 .*0,093.*0,60.*0,30"))
    page.get_by_role("button", name=texts["leave"]).click()
    start(page, "make", texts)
    expect(page.locator(".control output").first).to_contain_text(re.compile(r"0,\d{3}.*0,\d{3}"))
    assert not re.search(r"\d\.\d", page.locator("#stage").inner_text())
    page.locator("#language").select_option("en")
    expect(page).to_have_title(EN["title"])


def test_what_a_link_says_wrongly_is_told_and_nobody_is_stuck(open_page):
    page = open_page("learn?lesson=1.type-nothing.99.size.xx.simple.42.gan")
    expect(page.get_by_role("alert")).to_contain_text("activities, number of tasks, language")
    expect(page.get_by_role("button", name=re.compile("^Start: "))).to_have_count(3)
    page.goto(page.url.split("?")[0] + "?lesson=rubbish")
    expect(page.get_by_role("alert")).to_have_text(EN["trouble_link_whole"])
    expect(page.get_by_role("heading", level=1)).to_have_text(EN["home_title"])


def test_a_server_that_is_busy_is_asked_again(open_page):
    page = open_page(tolerated="Failed to load resource")
    page.unroute(re.compile("/api/examples"))
    calls = []

    def busy_once(route):
        calls.append(route)
        if len(calls) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "the server is busy"})
        else:
            answer_examples(route)

    page.route(re.compile("/api/examples"), busy_once)
    page.get_by_role("button", name=f"Start: {EN['activity_type']}").click()
    expect(page.get_by_role("heading", name=EN["question_type"])).to_be_visible()
    expect(page.locator("#trouble")).to_be_hidden()


# Pure functions, by one load of the page


def test_pure_functions(open_page):
    page = open_page()
    found = page.evaluate(
        """async () => {
            const own = await import(new URL("learn-lesson.js", location.href).href);
            const lesson = {
                activities: ["type", "make"], count: 4, controls: ["round"], language: "es", words: "expert",
                number: 9999, model: "gan",
            };
            const supported = { spiral: [0.1, 0.2] };
            const size = { id: "size", attribute: { name: "size", low: 0.05, high: 0.25, supported } };
            const begin = (number) => own.makeTasks({ spiral: [example] }, 1, number, [size])[0].begin.size;
            const radii = ({ examples }) => examples.map(own.halfLightRadius).sort();
            const near = [{ object_id: "x" }];
            const round = { id: "round", attribute: { name: "ellipticity", low: 0, high: 0.9, supported: {} } };
            const scale = own.scaleOf(round, "simple");
            const pools = { a: [1, 2, 3].map((seed) => ({ seed: `a${seed}` })), b: [{ seed: "b1" }] };
            const example = { morphology: "spiral", attributes: { size: { requested: 0.15 } } };
            const disc = (radius) => ({ ellipse: { semi_major: 1.5 * radius, semi_minor: 0.5 * radius } });
            return {
                again: own.readLesson(own.writeLesson(lesson)).lesson,
                none: own.readLesson(null),
                faults: own.readLesson("1.type.0.size.en.simple.10000.GAN").faults,
                compared: own.compare([size], { size: 0.11 }, { size: 0.1 }).size,
                above: own.compare([size], { size: 0.1101 }, { size: 0.1 }).size,
                below: own.compare([size], { size: 0.0899 }, { size: 0.1 }).size,
                unknown: own.compare([size], { size: null }, { size: 0.1 }).size,
                agreed: [own.agrees({ a: 0, b: 0 }), own.agrees({ a: 0, b: null }), own.agrees({ a: 0, b: 1 })],
                shown: [scale.shown(0.25), scale.value(75), scale.low, scale.high],
                types: own.typeTasks(pools, 3, 5).map(({ example }) => example.seed).sort(),
                same: JSON.stringify(own.typeTasks(pools, 3, 5)) === JSON.stringify(own.typeTasks(pools, 3, 5)),
                starts: Array.from({ length: 50 }, (_, k) => begin(k)),
                order: own.sizeOrder([disc(0.2), disc(0.1), disc(0.15)]),
                rows: own.sizeTasks([[disc(0.1)], [disc(0.105)], [disc(0.13)]], 1, 3).map(radii),
                pairs: own.realTasks([{ example: 1 }, { example: 2 }], [near, near], 1).length,
                others: own.beyond({ a: [1, 2, 3], b: [4], c: [] }, 1),
                first: Array.from({ length: 1000 }, (_, k) => own.random(k)()),
                shuffled: own.shuffled([1, 2, 3, 4, 5], own.random(8)).sort().join(""),
            };
        }"""
    )
    assert found["again"]["activities"] == ["type", "make"] and found["again"]["number"] == 9999
    assert (found["again"]["language"], found["again"]["words"], found["again"]["controls"]) == (
        "es",
        "expert",
        ["round"],
    )
    assert found["none"] == {"lesson": None, "faults": []}
    assert found["faults"] == ["count", "number", "model"]
    assert (found["compared"], found["above"], found["below"], found["unknown"]) == (0, 1, -1, None)  # 5 % of 0.2
    assert found["others"] == {"a": [2, 3], "b": [4], "c": []}  # where there are no others, the same again
    assert found["agreed"] == [True, False, False]
    assert found["shown"] == pytest.approx([75, 0.25, 10, 100])
    assert "b1" in found["types"] and "a1" in found["types"] and len(set(found["types"])) == 3
    assert found["same"]
    # At least a quarter of the slider's range, 0.05, away from 0.15, and within what real galaxies have.
    assert set(found["starts"]) and all(
        value in (0.1, 0.2) or value <= 0.1 or value >= 0.2 for value in found["starts"]
    )
    assert all(0.1 - 1e-9 <= value <= 0.2 + 1e-9 for value in found["starts"])
    assert found["order"] == [2, 0, 1]
    (row,) = found["rows"]
    assert row in ([pytest.approx(0.1), pytest.approx(0.13)], [pytest.approx(0.105), pytest.approx(0.13)])
    assert found["pairs"] == 1
    assert abs(sum(found["first"]) / 1000 - 0.5) < 0.05 and 0 <= min(found["first"]) < max(found["first"]) < 1
    assert found["shuffled"] == "12345"


# Screens, and who reads them


SIZES = [(390, 844), (844, 390), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((720, 450), (1440, 900)))]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_each_view_fits_and_has_no_faults(open_page, width, height):
    page = open_page(width=width, height=height)
    page.locator("summary", has_text=EN["teacher_title"]).click()

    def look():
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert faults_of(page) == []

    look()
    for activity, chosen in (("type", "Merger"), ("sizes", None), ("make", EN["make_show"])):
        start(page, activity)
        picture = page.locator("#stage img").first.bounding_box()
        assert picture["y"] + picture["height"] <= height, "a picture is not in sight"
        if chosen:
            page.get_by_role("button", name=chosen, exact=True).click()
        else:
            for index in range(3):
                page.locator(".galaxy").nth(index).click()
        expect(page.get_by_role("button", name="Next task")).to_be_in_viewport()
        look()
        page.get_by_role("button", name=EN["leave"]).click()


def test_the_page_works_below_a_path(open_page, address):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from urllib.request import urlopen

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith("/hub/galaxies/"):
                self.send_error(404)
                return
            with urlopen(address + self.path.removeprefix("/hub/galaxies/")) as answer:
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.end_headers()
                self.wfile.write(answer.read())

        def log_message(self, *_):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        page = open_page(at=f"http://127.0.0.1:{proxy.server_port}/hub/galaxies/")
        start(page, "type")
        expect(page.get_by_role("img", name=EN["picture"])).to_have_attribute("src", re.compile("^blob:"))
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
