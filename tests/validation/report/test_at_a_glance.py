"""The top of a report: what can be trusted, on one scale; notes that are said once; mock galaxies named so."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from galaxies.validation.report import plots
from galaxies.validation.report.cells import Estimate, LeftOut, Share
from galaxies.validation.report.contents import Copies, SuspectedCopies
from galaxies.validation.report.figures import headline, in_words, level_of_multiple, verdict
from galaxies.validation.report.page import Notes, build_page
from galaxies.validation.report.realism import ARMS, Morphology, Rates, RealOrFake, Seen
from galaxies.validation.report.report_file import from_plain, to_plain
from tests.validation.report.test_page import agreement, changed
from tests.validation.reports import old_plain


@pytest.fixture
def report():
    return from_plain(old_plain())


def level_of(report, subject):
    (level,) = {card.level for card in headline(report) if card.subject == subject}
    return level


def read(report, attribute, found, by="judge", reached=None):
    """Return a report in which one instrument reads an attribute so well, and real galaxies as well as `reached`."""
    cell = replace(agreement(0.1), spearman=Estimate(found, (0, 1)))
    report = changed(report, f"control.attributes.uniform.{attribute}", {by: {"all": cell}})
    real = {} if reached is None else {by: {"all": replace(cell, spearman=Estimate(reached, (0, 1)))}}
    return changed(report, f"control.instruments.{attribute}", real)


@pytest.mark.parametrize(
    ("found", "reached", "level"),
    [
        *((0.96, None, "good"), (0.94, None, "fair"), (0.81, None, "fair"), (0.79, None, "poor")),
        *((0.6, 0.61, "good"), (0.58, 0.61, "fair"), (0.43, 0.61, "poor"), (0.96, 0.999, "good")),
    ],
)
def test_control_is_held_against_what_the_instrument_reaches(report, found, reached, level):
    assert level_of(read(report, "size", found, reached=reached), "half-light radius") == level


def test_what_the_generator_was_trained_to_please_is_no_proof(report):
    pleased = read(report, "size", 0.99, "photometry")
    assert level_of(pleased, "half-light radius") == "fair"
    assert level_of(replace(pleased, photometry_was_trained_on=False), "half-light radius") == "good"
    assert level_of(read(report, "size", 0.3, "photometry"), "half-light radius") == "poor"


@pytest.mark.parametrize(
    ("accuracy", "auc", "level"),
    [(0.6, 0.64, "good"), (0.61, 0.64, "fair"), (0.75, 0.8, "fair"), (0.76, 0.8, "poor"), (0.5, 0.98, "poor")],
)
def test_a_network_that_ranks_well_tells_them_apart_whatever_its_limit(report, accuracy, auc, level):
    fresh = RealOrFake(55, {"all": Rates(33, accuracy, 0.02, auc)})
    assert level_of(changed(report, "realism.real_or_fake", fresh), "looks") == level


@pytest.mark.parametrize(("made", "level"), [(0.54, "good"), (0.44, "fair"), (0.64, "fair"), (0.34, "poor")])
def test_arms_are_held_against_the_share_of_real_spirals(report, made, level):
    seen = Seen(Share(made, (0, 1), 50), Share(0.5, (0, 1), 50), made - 0.5, (-1, 1))
    report = changed(report, "realism.morphology", Morphology({}, {ARMS: {"spiral": seen}}))
    assert level_of(report, "spiral arms") == level


def test_copies_are_spoken_of_where_there_is_something_to_copy(report):
    copies = SuspectedCopies(0.05, (0.03, 0.07), 0.01)
    found = Copies(9, 9, 99, 1.0, 1.0, 0.5, copies)
    report = changed(report, "honesty.copies", found)
    assert "no copies" not in {card.subject for card in headline(report)}
    own = changed(report, "data.trained_on", True)
    assert level_of(own, "no copies") == "poor"
    assert (
        level_of(changed(own, "honesty.copies.copies", replace(copies, interval=(0.01, 0.07))), "no copies") == "good"
    )


def test_multiples_have_the_scale_of_the_top():
    found = [level_of_multiple(multiple) for multiple in (0.9, 1.2, 1.21, 3.0, 3.1, None)]
    assert found == ["good", "good", "fair", "fair", "poor", None]


@pytest.mark.parametrize(("failed", "level"), [(0, "good"), (4, "fair"), (5, "poor")])
def test_distances_are_trusted_by_their_checks(report, failed, level):
    cells = list(report.validation.growths())
    for k, cell in enumerate(cells):
        object.__setattr__(cell, "monotone", k >= failed)
    (card,) = (card for card in headline(report) if card.subject == "the distances themselves")
    assert (card.value, card.level) == (f"{24 - failed} of 24", level)
    gone = changed(report, "validation", LeftOut("nobody looked"))
    assert "the distances themselves" not in {card.subject for card in headline(gone)}


@pytest.mark.parametrize(("multiple", "level"), [(1.1, "good"), (2.0, "fair"), (4.0, "poor")])
def test_statistics_are_trusted_by_their_multiple(report, multiple, level):
    mean = replace(report.realism.statistics.mean["all"], multiple=multiple)
    assert level_of(changed(report, "realism.statistics.mean.all", mean), "measured statistics") == level


def test_a_subject_that_two_figures_tell_of_is_named_at_its_worst(report):
    for name, found in (("size", 0.5), ("size_arcsec", 0.99)):  # of one label
        report = read(report, name, found)
    assert "half-light radius" in verdict(report)["poor"] and "half-light radius" not in verdict(report)["good"]


def test_a_figure_says_that_its_witness_was_trained_on(report):
    pleased = read(report, "size", 0.99, "photometry")
    words = ", photometry, which it was trained on"
    (text,) = (card.text for card in headline(pleased) if card.subject == "half-light radius")
    assert text.endswith(words)
    (text,) = (card.text for card in headline(read(report, "size", 0.99)) if card.subject == "half-light radius")
    assert text.endswith(", judge")


def test_the_verdict_names_each_subject_once_at_its_worst(report):
    found = verdict(report)
    subjects = [subject for level in found.values() for subject in level]
    assert len(subjects) == len(set(subjects)) == len({card.subject for card in headline(report)})
    assert list(found) == ["good", "fair", "poor"] and "measured statistics" in found["poor"]
    page = build_page(report, {})
    top = page[: page.index("<nav>")]
    assert "<b>Not to be trusted:</b>" in top and "since no instrument reads it: redshift." in top
    assert top.count("<li class=poor>") == 1 + sum(card.level == "poor" for card in headline(report))
    assert f"<b>Not to be trusted:</b> {', '.join(found['poor'])}." in top


def test_a_model_of_other_data_and_mock_galaxies_are_named_first(report):
    other = changed(changed(report, "data.trained_on", False), "data.source", "mock survey of seed 3")
    page = build_page(changed(other, "checkpoint.source", "SDSS"), {})
    words = re.sub("<[^>]+>", "", page)
    order = ["not the dataset that the run was trained on", "It learned from SDSS", "mock survey of seed 3"]
    order += ["held against are mock ones", "Not to be trusted", "Control"]
    assert sorted(order, key=words.index) == order
    assert "53 mock test galaxies" in words and "real galaxies" not in words.replace("being like real galaxies", "")
    assert "mock against mock" in words and "real against real" not in words
    page = build_page(changed(report, "data.source", "simulation: TNG50"), {})
    words = re.sub("<[^>]+>", "", page)
    assert "held against are simulated ones, drawn by a simulation and none of the sky" in words
    assert "53 simulated test galaxies" in words and "simulated against simulated" in words
    assert "real galaxies" not in words.replace("being like real galaxies", "")
    page = build_page(changed(report, "data.trained_on", True), {})
    assert "mock" not in page and "and is held here against" not in page


def test_independent_witnesses_stand_before_those_of_the_training(report):
    page = build_page(report, {})
    table = page[page.index("<h3>Half-light radius</h3>") : page.index("<h3>Surface brightness</h3>")]
    rows = re.findall(r"<th scope=row>([^<]*)</th>", table)
    kinds = [next(kind for kind in ("judge", "statmorph", "photometry") if kind in row) for row in rows]
    assert kinds == sorted(kinds, key=["judge", "statmorph", "photometry"].index)
    assert [row for row in rows if "photometry" in row] == [row for row in rows if row.endswith(", trained on")]


def test_a_reason_is_said_once_however_often_it_applies(report):
    page = build_page(report, {})
    assert page.count("needs 20 real and 10 generated values") == 1
    (item,) = re.findall(r"<li id=.note-(\d+).>needs 20 real and 10 generated values \((\d+) places\)", page)
    assert page.count(f'href="#note-{item[0]}"') == int(item[1]) > 20
    notes = Notes()
    reasons = ["needs 20 pairs of values, has 3", "no judge", "needs 20 pairs of values, has 12", "no judge"]
    assert [notes.mark(reason) for reason in (*reasons, "needs 9 of them, has none")] == [1, 2, 1, 2, 3]
    assert notes.texts() == ["needs 20 pairs of values (2 places)", "no judge (2 places)", "needs 9 of them, has none"]
    assert Notes().texts() == []


def test_every_table_scrolls_by_itself_and_can_be_printed(report):
    page = build_page(report, {})
    assert page.count("<table") == page.count("<div class=scroll tabindex=0 role=group aria-label=") > 5
    assert "@media print" in page and "@page" in page


def test_reports_of_format_4_are_read(report):
    plain = json.loads(json.dumps(to_plain(report))) | {"format_version": 4}
    del plain["checkpoint"]["source"]
    old = from_plain(plain)
    assert old == report and old.checkpoint.source is None
    assert "not written down" in build_page(old, {})
    told = changed(report, "checkpoint.source", "SDSS")
    assert from_plain(json.loads(json.dumps(to_plain(told)))) == told


def test_a_report_without_figures_says_what_is_not_told(report):
    nothing = LeftOut("nobody looked")
    bare = changed(report, "realism.real_or_fake", nothing)
    for name in ("size", "brightness", "ellipticity"):
        bare = changed(bare, f"control.attributes.uniform.{name}", {})
    told = "half-light radius, surface brightness, ellipticity, redshift."
    assert f"since no instrument reads it: {told}" in build_page(bare, {})


def test_plots_call_mock_galaxies_so(report):
    pytest.importorskip("matplotlib")
    mock = changed(report, "data.source", "mock survey of seed 3 as LSST sees it")
    for shown, word in ((report, "real"), (mock, "mock")):
        (power,), (multiples,), classes = (
            plot(shown, SimpleNamespace(), plots.THEMES["light"]).axes
            for plot in (plots.plot_power, plots.plot_multiples, plots.plot_confusion)
        )
        assert power.get_ylabel() == f"power, generated / {word}"
        assert f"of generated from {word}, over that of {word} from {word}" in multiples.get_xlabel()
        assert classes[0].get_title() == f"{word} test galaxies"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Half-light radius", "half-light radius"),
        ("Magnitude K", "magnitude K"),
        ("H-alpha equivalent width", "H-alpha equivalent width"),
        ("M20", "M20"),
        ("z", "z"),
    ],
)
def test_a_label_within_a_sentence_keeps_its_symbols(label, words):
    assert in_words(label) == words
