"""Surveys that a file describes."""

from __future__ import annotations

import json
import math
import re

import pytest

from galaxies.common.errors import UserError
from galaxies.telescope.surveys import find_survey
from tests.conftest import ROOT

BAND = {
    "name": "r",
    "wavelength_nm": 622,
    "psf_fwhm": 0.9,
    "sky_brightness": 21.0,
    "zero_point": 27.0,
    "exposure_s": 900,
}
SURVEY = {"format_version": 1, "name": "Mine", "pixel_scale": 0.25, "psf": "moffat:3.5", "bands": [BAND]}


@pytest.fixture
def described(tmp_path):
    """Return a writer of a survey's file with other entries, and with others in its band, that returns its path."""

    def write(of_band=None, **entries) -> str:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({**SURVEY, "bands": [{**BAND, **(of_band or {})}], **entries}), encoding="utf-8")
        return str(path)

    return write


def test_a_file_describes_a_survey(described):
    other = {**BAND, "name": "i", "wavelength_nm": 760, "edges_nm": [700, 820]}
    survey = find_survey(described(bands=[BAND, other]), ["I", "r"])
    assert (survey.name, survey.pixel_scale, survey.profile, survey.obscuration) == ("Mine", 0.25, "moffat:3.5", 0.0)
    assert [band.name for band in survey.bands] == ["i", "r"]
    assert survey.bands[0].edges_nm == (700, 820)
    assert survey.bands[1].edges_nm == (553, 691)  # as wide as the way to its neighbour
    # 900 seconds at an electron a second at magnitude 27: 1 nJy, magnitude 31.4, gives 900 x 10^(-0.4 x 4.4).
    assert survey.bands[1].electrons_per_njy == pytest.approx(15.64, rel=1e-3)


def test_the_sky_and_the_readings_make_the_noise(described):
    band = find_survey(described({"read_noise": 6.0, "visit_s": 300})).bands[0]
    sky = 900 * 10 ** (0.4 * (27.0 - 21.0)) * 0.25**2  # electrons a pixel
    assert band.readings == 3
    assert band.sky_noise(0.25) * band.electrons_per_njy == pytest.approx(math.sqrt(sky + 3 * 6.0**2))
    assert find_survey(described({"visit_s": 301})).bands[0].readings == 3
    assert find_survey(described({"visit_s": 1000})).bands[0].readings == 1
    longer = find_survey(described({"visit_s": 300})).with_exposure(3000).bands[0]
    assert longer.readings == 10


def test_counts_of_a_gain_are_turned_into_electrons(described):
    # Of 2 electrons a count, a count a second at magnitude 26 is two electrons a second there.
    in_counts = find_survey(described({"zero_point": 26.0}, gain=2.0)).bands[0]
    assert in_counts.electrons_per_njy == pytest.approx(900 * 2 * 10 ** (0.4 * (26.0 - 31.4)))
    assert find_survey(described({"zero_point": 26.0, "gain": 2.0})).bands[0] == in_counts


def test_diffraction_has_its_obscuration_apart(described):
    survey = find_survey(described(psf="airy:0.31"))
    assert (survey.profile, survey.obscuration) == ("airy", 0.31)
    assert find_survey(described(psf="airy")).obscuration == 0


@pytest.mark.parametrize(
    ("of_band", "entries", "said"),
    [
        ({}, {"psf": "moffat"}, "moffat takes beta from 1.5 to 50"),
        ({}, {"pixel_scale": 0}, "pixel_scale is 0, not a finite number from 0.001 to 60"),
        ({}, {"bands": []}, "bands is a list of 0, not a list of 1 to"),
        ({}, {"bands": [BAND, BAND]}, "band r is there twice"),
        ({}, {"mirror": 8.4}, "mirror has no business there"),
        ({}, {"format_version": 2}, "format_version is 2"),
        ({"exposure_s": 0}, {}, r"bands\[0\].exposure_s is 0, not a finite number"),
        ({"exposure_s": "long"}, {}, "exposure_s is 'long'"),
        ({"name": "r/../x"}, {}, "a band is called 'r/../x'"),
        ({"edges_nm": [700, 800]}, {}, "band r at 622 nm lies outside its edges, 700 to 800 nm"),
        (
            {},
            {"bands": [BAND, {**BAND, "name": "R2"}]},
            "at 622 nm lies outside its edges, 622 to 622 nm: give edges_nm",
        ),
    ],
)
def test_what_describes_no_survey_is_refused_in_a_sentence(described, of_band, entries, said):
    path = described(of_band, **entries)
    with pytest.raises(UserError, match=said) as refused:
        find_survey(path)
    sentence = str(refused.value)
    assert path in sentence and "docs/surveys.md" in sentence and "\n" not in sentence


def test_missing_entries_and_files_are_named(described, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({k: v for k, v in SURVEY.items() if k != "psf"}), encoding="utf-8")
    with pytest.raises(UserError, match="psf is missing"):
        find_survey(str(path))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is no JSON"):
        find_survey(str(path))
    with pytest.raises(UserError, match="there is no file"):
        find_survey(str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="Mine has no band 'g': choose from r"):
        find_survey(described(), ["g"])


def test_the_example_of_the_guide_is_a_survey(tmp_path):
    examples = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "surveys.md").read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "example.json"
    path.write_text(examples[0], encoding="utf-8")
    survey = find_survey(str(path))
    assert len(survey.bands) >= 2
