"""A whole report of flux: a generator that paints what it is told, against real galaxies of the same bands."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.photometry import LIGHT_FLAG_BITS
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.validation import evaluation, subject
from galaxies.validation.commands import _json
from galaxies.validation.report import plots
from galaxies.validation.report.cells import ALL, LeftOut
from galaxies.validation.report.figures import headline
from galaxies.validation.report.model_card import write_card
from galaxies.validation.report.page import build_page
from galaxies.validation.report.report_file import from_plain, to_plain
from galaxies.validation.targets import verdicts
from galaxies.validation.viewing import statistics_of
from tests.conftest import write_flux_dataset
from tests.generation.painted import ATTRIBUTES, BANDS, FLUX, painting_sampler, write_flux_checkpoint

pytest.importorskip("matplotlib")


class StandInJudge:
    """Reads a magnitude by the sum of a plane, sees coarse pixels, and calls all galaxies discs."""

    attributes = ("magnitude_r",)
    card = {"galaxies": 0}  # noqa: RUF012

    @classmethod
    def of_dataset(cls, data, device="auto"):
        return cls()

    def read(self, images):
        return 31.4 - 2.5 * torch.log10(images[:, 1].sum((1, 2)).clamp_min(1.0))[:, None]

    def classify(self, images):
        return torch.tensor([1.0, 0.0]).expand(len(images), 2)

    def features(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> evaluation.Evaluation:
    folder = tmp_path_factory.mktemp("flux")
    # Nothing here is blurred; a PSF that was taken off all the same would make sizes an eighth too small.
    data = write_flux_dataset(folder / "data", 290, BANDS, FLUX["classes"], seed=3, tell_psf=False)
    checkpoint = write_flux_checkpoint(folder / "run/latest.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "Judge", StandInJudge)
        patch.setattr(GalaxySampler, "from_state", lambda *_, **__: painting_sampler())
        return evaluation.evaluate(checkpoint, data, 40, 0, "cpu", steps=1)


def test_the_report_says_what_was_compared(found):
    report = found.report
    assert (report.data.kind, report.data.bands, report.data.classes) == ("flux", list(BANDS), list(FLUX["classes"]))
    assert report.checkpoint.attributes == list(ATTRIBUTES)
    assert report.checkpoint.attribute_ranges[0] == (18.0, 22.0)
    assert [row.high for row in report.checkpoint.rows()] == [22.0, 1.5, 2.0, 1.0]
    assert from_plain(to_plain(report)) == report and _json(to_plain(report))


def test_requested_and_measured_agree_in_physical_units(found):
    control = found.report.control
    for name, tolerance in (("magnitude_r", 0.1), ("color_g_r", 0.1), ("size_arcsec", 0.03)):
        cell = control.attributes.uniform[name]["photometry"][ALL]
        assert cell.spearman.value > 0.95 and cell.mae.value < tolerance, name
    assert control.attributes.uniform["magnitude_r"]["judge"][ALL].spearman.value > 0.9
    assert control.attributes.uniform["redshift"] == {}  # nobody reads it here
    assert set(control.attributes.test["magnitude_r"]["photometry"]) == {ALL, *FLUX["classes"]}
    # The catalogue tells the truth, not what photometry reads: its own error on real galaxies is worth a row.
    assert control.instruments["magnitude_r"]["photometry"][ALL].mae.value < 0.1
    assert control.classes.test.confusion == [[1.0, 0.0], [1.0, 0.0]]
    figures = found.report.figures()
    assert figures["magnitude_r, photometry: mae [mag]"] < 0.1
    words = "rank correlation of requested and measured magnitude r, judge, requests like real galaxies"
    correlation = control.attributes.test["magnitude_r"]["judge"][ALL].spearman.value
    assert (f"{correlation:.2f}", words) in {card[:2] for card in headline(found.report)}
    assert "half-light radius, photometry: MAE over the mean" in {verdict.name for verdict in verdicts(found.report)}


def test_real_and_generated_flux_are_compared_as_sets(found):
    realism, honesty = found.report.realism, found.report.honesty
    assert list(realism.statistics.table) == [s.name for s in statistics_of("flux", BANDS)]
    assert not isinstance(realism.statistics.table["magnitude_r"][ALL], LeftOut)
    assert realism.features["statistics"].features == len(statistics_of("flux", BANDS))
    assert not isinstance(realism.power.groups[ALL], LeftOut)
    assert set(honesty.flags.test) == set(LIGHT_FLAG_BITS.values())
    assert honesty.copies.generated > 0 and 0.3 < honesty.variety[ALL].pixels < 3


def test_page_and_plots_show_flux(found):
    page = build_page(found.report, {})
    for text in ("Magnitude r", "Half-light radius", "arcsec", "early-type", "Noise, Ks"):
        assert text in page
    samples = plots.plot_samples(found.report, found.pictures, plots.THEMES["light"])
    assert [axis.get_ylabel() for axis in samples.axes] == [
        f"{label}\n{kind}" for label in ("Disc", "Early type") for kind in ("real", "generated")
    ]
    strip = samples.axes[0].images[0].get_array()
    assert strip.dtype == np.uint8 and strip[:, :64].std() > 5
    multiples = plots.plot_multiples(found.report, found.pictures, plots.THEMES["light"]).axes[0]
    assert [text.get_text() for text in multiples.get_yticklabels()] == [s.label for s in statistics_of("flux", BANDS)]


def test_a_card_of_flux_speaks_of_flux(found, tmp_path):
    state = load_checkpoint(write_flux_checkpoint(tmp_path / "run/latest.pt"))
    facts = {"precision": "float16", "half_precision_difference": {"most": 0.04713, "mean": 0.01}, "credit": "me"}
    facts |= {"steps": 7, "images_per_step": 16, "minutes": {"predictor": 1.0, "generator": 2.0}, "machine": None}
    manifest = {"count": 290, "counts": {"train": {"disc": 100, "early-type": 99}}, "sha256": {"images.npy": "0"}}
    write_card(tmp_path / "card.md", state, "a test", facts, manifest, found.report, 1000)
    card = " ".join((tmp_path / "card.md").read_text(encoding="utf-8").split())
    limits = card.partition("## Limits")[2]
    assert "in nJy and magnitudes AB, in the bands g, r, i, Ks" in limits and "at 0.2 arcsec a pixel" in limits
    assert "stretched" not in limits and "Galaxy Zoo" not in limits and "is an extrapolation" in limits
    assert "at most 0.047 of 255 levels of the stretched image" in card
    assert "100 disc, 99 early type" in card and "`bands` g r i Ks" in card and "&#39;" not in card


def test_a_catalogue_of_photometrys_own_readings_teaches_nothing():
    truth = np.array([20.0, np.nan, 21.5])
    assert evaluation._is_its_own(truth, np.array([20.0001, 3.0, np.nan]))
    assert not evaluation._is_its_own(truth, np.array([20.05, 3.0, 21.5]))
    assert not evaluation._is_its_own(np.full(3, np.nan), truth)


def test_flux_needs_a_dataset_of_its_kind(found, dataset_path):
    with pytest.raises(UserError, match=r"draws images of kind flux, and .* holds kind display"):
        subject.match(painting_sampler(), PreparedDataset.open(dataset_path), "c.pt")
