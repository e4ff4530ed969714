"""The typed report: old files stay readable, renamed fields fail at once, and what was left out says why."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest

import evaluate
from config_physics import MORPHOLOGY_NAMES, attribute_table
from galaxies.common.errors import UserError
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.contents import FORMAT_VERSION
from galaxies.validation.report.control import agreement_of
from galaxies.validation.report.figures import headline
from galaxies.validation.report.report_file import from_plain, read_report, to_plain
from galaxies.validation.targets import verdicts
from tests.validation.reports import OLD_REPORT, old_plain


def test_a_report_of_format_1_is_read_with_every_number():
    plain, report = old_plain(), read_report(OLD_REPORT)
    assert plain["format_version"] == 1 and report.format_version == FORMAT_VERSION == 8
    assert (report.data.kind, report.data.bands) == ("display", ["r", "g", "b"])
    assert report.data.classes == list(MORPHOLOGY_NAMES)
    assert report.checkpoint.rows() == attribute_table(tuple(plain["checkpoint"]["attributes"]))
    figures = report.figures()
    cell = plain["control"]["attributes"]["uniform"]["size"]["photometry"]["all"]
    assert figures["size, photometry: mae [frame widths]"] == cell["mae"]["value"]
    assert figures["size, photometry: spearman"] == cell["spearman"]["value"]
    assert figures["size: gaming gap"] == plain["control"]["gaming"]["test"]["size"]["ratio"]
    assert figures["class accuracy, generated"] == plain["control"]["classes"]["test"]["balanced"]["value"]
    assert figures["class accuracy, real"] == plain["control"]["classes"]["real"]["balanced"]["value"]
    mean = plain["realism"]["statistics"]["mean"]["all"]
    assert figures["statistics, all: W1 / floor"] == mean["multiple"]
    assert figures["statistics, all: W1 of all images"] == mean["whole"]
    near = plain["realism"]["features"]["statistics"]["neighbourhoods"]
    for word in ("precision", "recall", "density", "coverage"):
        assert figures[f"statistics: {word}"] == near[word]["value"]
    assert figures["statistics: kid / floor"] == plain["realism"]["features"]["statistics"]["kid"]["multiple"]
    assert figures["random: frechet / floor"] is None  # fewer images than features
    assert figures["real or fake: accuracy"] == plain["realism"]["real_or_fake"]["all"]["accuracy"]
    assert figures["suspected copies"] == plain["honesty"]["copies"]["copies"]["value"]
    assert figures["variety, all"] == plain["honesty"]["variety"]["all"]["pixels"]
    drawn = plain["counts"]["test"] + plain["counts"]["uniform"]
    assert figures["generation [ms an image]"] == 1000 * plain["seconds"]["generation"] / drawn
    groups = {k: v for k, v in plain["realism"]["power"].items() if k != "cycles"}
    assert to_plain(report)["realism"]["power"]["groups"].keys() == groups.keys()


def test_compare_reads_reports_of_both_formats(tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps(to_plain(read_report(OLD_REPORT))))
    evaluate.main(["compare", str(OLD_REPORT), str(tmp_path)])
    rows = [line.rsplit(None, 2)[-2:] for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == len(read_report(OLD_REPORT).figures())
    assert all(old == new for old, new in rows)


def test_a_written_report_is_read_as_it_was():
    report = from_plain(old_plain())
    assert from_plain(json.loads(json.dumps(to_plain(report), allow_nan=False))) == report


@pytest.mark.parametrize(
    "path",
    [
        "checkpoint.run",
        "counts.test",
        "control.attributes.test",
        "control.attributes.test.size.photometry",
        "control.attributes.test.size.photometry.all.mae",
        "control.attributes.test.size.photometry.all.mean_requested",
        "control.classes.test.balanced",
        "control.gaming.test.size.ratio",
        "control.shuffled.uniform.size.no_skill",
        "realism.statistics.mean.all.whole",
        "realism.statistics.table.size.all.w1.multiple",
        "realism.features.statistics.frechet",
        "realism.real_or_fake.groups.all.accuracy",
        "honesty.copies.copies.interval",
        "honesty.unsupported.test",
        "validation.passed",
        "photometry_was_trained_on",
    ],
)
def test_a_renamed_key_makes_it_no_report(path, tmp_path):
    plain = json.loads(json.dumps(to_plain(from_plain(old_plain()))))
    *parents, last = path.split(".")
    place = plain
    for name in parents:
        place = place[name]
    place[last + "_"] = place.pop(last)
    (tmp_path / "report.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="is no report of this release: make it again"):
        read_report(tmp_path)


@pytest.mark.parametrize("version", [0, 3, "1", None, [1]])
def test_a_format_that_is_not_known_is_refused(version):
    with pytest.raises(ValueError, match=r"format|no report"):
        from_plain(old_plain() | {"format_version": version})


def test_what_could_not_be_read_again_is_not_written():
    report = from_plain(old_plain())
    readings = report.control.attributes.test["size"]
    wrong = {"photometre": readings["photometry"]}
    drawn = replace(report.control.attributes, test={**report.control.attributes.test, "size": wrong})
    with pytest.raises(ValueError, match="photometre"):
        to_plain(replace(report, control=replace(report.control, attributes=drawn)))


def test_what_is_left_out_says_why():
    plain = copy.deepcopy(old_plain())
    plain["honesty"]["copies"] = {"left_out": "too few"}
    plain["judge"] = {"left_out": "no judge"}
    report = from_plain(plain)
    assert report.honesty.copies == LeftOut("too few") and report.judge == LeftOut("no judge")
    assert to_plain(report)["honesty"]["copies"] == {"left_out": "too few"}
    assert report.figures()["suspected copies"] is None
    attributes = report.control.attributes.test
    assert agreement_of(attributes, "stellar_mass", "judge") == LeftOut("stellar_mass is no attribute of this run")
    assert agreement_of(attributes, "redshift", "judge") == LeftOut("judge does not read redshift here")


def test_targets_and_headline_find_their_numbers_in_a_report_as_it_is_written():
    report, plain = from_plain(old_plain()), old_plain()
    found = {verdict.name: verdict.found for verdict in verdicts(report)}
    cells = {
        name: plain["control"]["attributes"]["test"][name]["photometry"]["all"] for name in ("size", "ellipticity")
    }
    assert found["ellipticity, photometry: MAE"] == cells["ellipticity"]["mae"]["value"]
    over = cells["size"]["mae"]["value"] / cells["size"]["mean_requested"]
    assert found["half-light radius, photometry: MAE over the mean"] == pytest.approx(over)
    assert found["mean Wasserstein-1 of the statistics, all images"] is not None
    report = replace(report, data=replace(report.data, trained_on=True))
    values = {card.text: card.value for card in headline(report)}
    checks = [c["monotone"] for s in plain["validation"]["spaces"].values() for d in s.values() for c in d.values()]
    assert values["checks of the distances passed"] == f"{sum(checks)} of {len(checks)}"
    copies = plain["honesty"]["copies"]["copies"]["value"]
    assert values["suspected copies of training galaxies; 1 % is expected"] == f"{copies:.1%}"
