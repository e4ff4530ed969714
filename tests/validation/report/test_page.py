"""The page and the card: every number under its heading, every warning, and hostile names escaped."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

import evaluate
from config_physics import MORPHOLOGY_NAMES, Config
from galaxies.common.errors import UserError
from galaxies.datasets.layout import DISPLAY
from galaxies.measure.photometry import FLAG_BITS
from galaxies.validation import evaluation, subject, viewing
from galaxies.validation.comparison import flag_shares
from galaxies.validation.report.cells import Drawn, Estimate, LeftOut
from galaxies.validation.report.control import Agreement, GamingGap
from galaxies.validation.report.model_card import write_card
from galaxies.validation.report.page import build_page
from galaxies.validation.report.realism import Distance, Neighbourhood, Neighbourhoods, Rates, RealOrFake, SpaceCompared
from galaxies.validation.report.report_file import from_plain
from tests.validation.reports import old_plain

HOSTILE = '<script>alert("x")</script>\'&'


class Tables(HTMLParser):
    """Collects the tables of a page: {(first heading, row's heading): {heading: cell}}."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.head, self.row, self.cell, self.cells = [], [], None, {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "thead":
            self.head = []
        elif tag == "tr":
            self.row = []
        elif tag in ("th", "td"):
            self.cell = ""

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.row.append(" ".join(self.cell.split()))
            self.cell = None
        elif tag == "thead":
            self.head = self.row
        elif tag == "tr" and self.head:
            self.cells.setdefault((self.head[0], self.row[0]), dict(zip(self.head, self.row, strict=False)))


def changed(report, path, value):
    """Return a report with another value at a path of fields and keys."""
    name, _, rest = path.partition(".")
    if isinstance(report, dict):
        return report | {name: changed(report[name], rest, value) if rest else value}
    return replace(report, **{name: changed(getattr(report, name), rest, value) if rest else value})


@pytest.fixture
def report():
    return from_plain(old_plain())


def agreement(start: float) -> Agreement:
    terms = [Estimate(start + k / 100, (start - 1, start + 1)) for k in range(4)]
    return Agreement(77, 0.5, 0.25, *terms)


def test_agreement_stands_under_its_headings(report):
    groups = {"all": agreement(0.11)} | {name: agreement(k / 10) for k, name in enumerate(MORPHOLOGY_NAMES, 2)}
    report = changed(report, "control.attributes.uniform.size", {"photometry": groups})
    row = Tables(build_page(report, {})).cells["frame widths", "uniform, photometry, trained on"]
    assert row["MAE"].startswith("0.11 -0.89 to 1.1")
    assert row["bias"].startswith("0.12") and row["R²"].startswith("0.13") and row["Spearman"].startswith("0.14")
    assert [row[f"ρ {name}"] for name in MORPHOLOGY_NAMES] == ["0.23", "0.33", "0.43", "0.53"]
    assert row["images"] == "77"


def test_gaming_and_shuffled_controls_stand_under_their_headings(report):
    gap = GamingGap(0.31, 0.32, 0.33, 0.34, 0.35, 0.36)
    report = changed(report, "control.gaming.test.size", gap)
    shuffled = replace(report.control.shuffled.test["size"], observed=0.41, spearman=-0.42, no_skill=False)
    report = changed(report, "control.shuffled.test.size", shuffled)
    row = Tables(build_page(report, {})).cells["", "Half-light radius, as test split"]
    assert [row[h] for h in ("judge MAE", "predictor MAE", "gap", "gap, real")] == ["0.31", "0.32", "0.33", "0.36"]
    assert row["Spearman"] == "0.41" and row["shuffled, |ρ|"].startswith("0.42") and row["no skill"] == "no"


def distance(value: float) -> Distance:
    return Distance(value, (0, 1), value / 10, (0, 1), 10.0, 30)


def test_distances_stand_under_their_headings(report):
    keys = ("precision", "recall", "density", "coverage")
    near = {k: Neighbourhood(0.2 + i / 100, (0, 1), 0.7 + i / 100) for i, k in enumerate(keys)}
    space = SpaceCompared(4, distance(0.5), distance(0.6), Neighbourhoods(30, 5, **near))
    report = changed(report, "realism.features.judge", space)
    cells = Tables(build_page(report, {})).cells
    row = cells["", "Judge 4 features"]
    assert row["Fréchet"] == "× 10 0.5" and row["KID"] == "× 10 0.6"
    assert [row[key][:4] for key in keys] == ["0.2 ", "0.21", "0.22", "0.23"]
    floor = cells["", "real against real"]
    assert [floor[h] for h in ("Fréchet", "KID", *keys)] == ["0.05", "0.06", "0.7", "0.71", "0.72", "0.73"]


def test_a_fresh_networks_rates_stand_under_their_headings(report):
    report = changed(report, "realism.real_or_fake", RealOrFake(55, {"all": Rates(33, 0.61, 0.02, 0.71)}))
    page = build_page(report, {})
    row = Tables(page).cells["", "all"]
    assert (row["accuracy"], row["area under the curve"], row["test pairs"]) == ("61.0% ± 2.0%", "0.710", "33")
    assert "It learned from 55 pairs" in page


def test_statistics_and_classes_stand_under_their_groups(report):
    table = report.realism.statistics.table["gini"]
    for k, group in enumerate(("all", *MORPHOLOGY_NAMES), 1):
        w1 = replace(table["all"].w1, value=float(k), multiple=2.0)
        report = changed(report, f"realism.statistics.table.gini.{group}", replace(table["all"], w1=w1))
    share = report.control.classes.test.groups["all"]
    for k, group in enumerate(("all", *MORPHOLOGY_NAMES), 1):
        report = changed(report, f"control.classes.test.groups.{group}", replace(share, value=k / 10))
    cells = Tables(build_page(report, {})).cells
    row = cells["× floor, W1 in standard deviations", "Gini"]
    assert [row[g] for g in ("all", *MORPHOLOGY_NAMES)] == [f"× 2 {k}" for k in range(1, 6)]
    row = cells["accuracy of the judge", "as test split"]
    assert [row[g].split()[0] for g in ("all", *MORPHOLOGY_NAMES)] == ["10%", "20%", "30%", "40%", "50%"]


def test_shares_are_those_of_what_their_rows_say(report):
    bit, text = next(iter(FLAG_BITS.items()))
    flags = np.array([bit] * 3 + [0] * 13)
    shares = flag_shares(flags, 0)
    assert shares[text].value == 3 / 16
    assert all(share.value == 0 for name, share in shares.items() if name != text)
    report = changed(report, "honesty.flags.test", shares)
    report = changed(report, "honesty.unsupported", Drawn(0.125, 0.25))
    cells = Tables(build_page(report, {})).cells
    assert cells["", f"{text}, as test split"]["share"].startswith("19%")
    assert cells["", "requests outside the support, as test split"]["share"] == "12.5%"
    assert cells["", "requests outside the support, uniform"]["share"] == "25.0%"


def test_statmorph_flags_what_it_could_not_measure(monkeypatch):
    def read(images, title):
        return {"size": np.zeros(len(images))}, np.array([1, 0, 0, 2, 0, 0, 0, 0])[: len(images)]

    monkeypatch.setattr(viewing, "read_with_statmorph", read)
    asked = SimpleNamespace(
        viewer=viewing.DISPLAY_VIEWER,
        data=SimpleNamespace(layout=DISPLAY),
        sampler=SimpleNamespace(config=SimpleNamespace(attributes=("size",))),
    )
    galaxies = subject.Galaxies(np.zeros((9, 1)), np.zeros(9, int), np.zeros((9, 1)), None, None, {}, {})
    found = evaluation._statmorph(asked, galaxies, 8, 0, "x")
    assert (found.images, found.flagged) == (8, 0.25)


WARNINGS = [
    ("photometry_was_trained_on", (True, False), "Photometry was part of this generator's training"),
    ("data.trained_on", (False, True), "This is not the dataset that the run was trained on"),
    ("validation.passed", (False, True), "not all distances grow: trust those that do."),
    ("honesty.copies", (LeftOut("no copies looked for"), None), "Left out: no copies looked for"),
    ("realism.real_or_fake", (LeftOut("no pairs there"), None), "Left out: no pairs there"),
    ("control.classes.real", (LeftOut("nobody judges"), None), "Left out: nobody judges"),
    ("validation", (LeftOut("no galaxies"), None), "Left out: no galaxies"),
]


@pytest.mark.parametrize("path, values, text", WARNINGS)
def test_warnings_stand_on_the_page_where_there_is_cause_and_only_there(report, path, values, text):
    warned, calm = values
    assert text in build_page(changed(report, path, warned), {})
    assert text not in build_page(report if calm is None else changed(report, path, calm), {})


def test_a_check_without_the_judge_says_so(data, monkeypatch, capsys):
    class Refusing:
        @classmethod
        def of_dataset(cls, *_):
            raise UserError("too few for a judge")

    monkeypatch.setattr(subject, "Judge", Refusing)
    with pytest.raises(UserError, match="the check needs 40 images of the reference"):
        evaluate.main(["validate", "--data", str(data.path), "--device", "cpu"])
    assert "without the judge: too few for a judge" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["checkpoint.run", "checkpoint.path", "checkpoint.sampler", "data.path", "data.source", "judge"]
)
def test_hostile_names_are_escaped_on_the_page(report, path):
    page = build_page(changed(report, path, {HOSTILE: HOSTILE} if path == "judge" else HOSTILE), {})
    assert "<script" not in page and "alert(&#34;x&#34;)" in page


def test_hostile_reasons_are_escaped(report):
    page = build_page(changed(report, "control.classes.real", LeftOut(HOSTILE)), {})
    assert "<script" not in page and "&lt;script&gt;" in page


def test_hostile_names_are_escaped_on_the_card(report, tmp_path):
    config = {field.name: getattr(Config(), field.name) for field in dataclasses.fields(Config)}
    state = {"config": config | {"run": HOSTILE, "attributes": ("size",)}, "epoch": 3, "step": 9, "provenance": {}}
    machine = {"device": HOSTILE, "cores": 2, "torch": "2.11", "commit": None}
    facts = {"minutes": {"predictor": 1.0, "generator": 2.0}, "steps": 9, "images_per_step": 16, "machine": machine}
    facts |= {"precision": "float16", "credit": HOSTILE, "half_precision_difference": {"most": 1.0, "mean": 0.1}}
    manifest = {"count": 1200, "counts": {"train": {"spiral": 1000}}, "sha256": {"images.npy": "abc"}}
    write_card(tmp_path / "card.md", state, HOSTILE, facts, manifest, report, 2_000_000)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "<script" not in card and card.count("&lt;script&gt;") == 4
    assert "1 minutes for the physics\npredictor and 2 for the generator" in card
    assert "1,200 galaxies, of which 1,000 to train on: 1,000 spiral" in card
    assert "2.00 MB, float16" in card and "| suspected copies of training galaxies | ≤ 0.01 within 95 % |" in card


@pytest.mark.parametrize("trained_on, text", [(True, "Photometry was part of"), (False, "Photometry was not part of")])
def test_the_card_says_whether_photometry_was_part_of_the_training(report, tmp_path, trained_on, text):
    report = replace(report, photometry_was_trained_on=trained_on)
    config = {field.name: getattr(Config(), field.name) for field in dataclasses.fields(Config)}
    state = {"config": config | {"attributes": ("size",)}, "epoch": 3, "step": 9, "provenance": {}}
    facts = {"minutes": {"predictor": 1.0, "generator": 2.0}, "steps": 9, "images_per_step": 16, "machine": None}
    facts |= {"precision": "float16", "credit": "us", "half_precision_difference": {"most": 1.0, "mean": 0.1}}
    manifest = {"count": 1200, "counts": {"train": {"spiral": 1000}}, "sha256": {"images.npy": "abc"}}
    write_card(tmp_path / "card.md", state, "drawn", facts, manifest, report, 2_000_000)
    assert text in (tmp_path / "card.md").read_text(encoding="utf-8")
