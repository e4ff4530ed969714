"""evaluate.py as a user runs it: a whole report with a stand-in for the judge, comparison, measuring, bad input."""

from __future__ import annotations

import base64
import csv
import json
import re
import subprocess
import sys
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from config_physics import BAND_NAMES, MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.measure import photometry
from galaxies.measure.statistics_table import STATISTIC_NAMES
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.validation import subject
from galaxies.validation.report import plots
from galaxies.validation.report.report_file import from_plain, read_report
from tests.conftest import ROOT, render_galaxies, run_script, write_dataset


class StandInJudge:
    """Reads attributes with photometry, calls flat galaxies edge-on and all others spiral, sees coarse pixels."""

    attributes = ("size", "ellipticity")
    card = MappingProxyType({"galaxies": 0})

    @classmethod
    def of_dataset(cls, data, device="auto"):
        return cls()

    def read(self, images):
        measured = photometry.measure(images.float() / 255)
        return torch.stack([measured.attribute(name) for name in self.attributes], 1)

    def classify(self, images):
        flat = self.read(images)[:, 1] > 0.6
        return torch.eye(4)[torch.where(flat, 3, 0)]

    def features(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


@pytest.fixture(scope="module")
def wide_data(tmp_path_factory):
    """A dataset with enough test galaxies for most statistics."""
    return write_dataset(tmp_path_factory.mktemp("wide") / "rendered", 480, seed=1)


@pytest.fixture(scope="module")
def report(trained, wide_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    arguments = ["report", "--checkpoint", trained / "checkpoints/tiny/latest.pt", "--data", wide_data, "--out", out]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "Judge", StandInJudge)
        evaluate.main([str(a) for a in (*arguments, "--count", 96, "--steps", 2, "--device", "cpu")])
    return out


def numbers(value):
    """Yield every number of a report."""
    if isinstance(value, dict):
        for member in value.values():
            yield from numbers(member)
    elif isinstance(value, list):
        for member in value:
            yield from numbers(member)
    elif isinstance(value, float):
        yield value


def test_report_has_every_part(report, wide_data):
    content = json.loads((report / "report.json").read_text())
    rows = PreparedDataset.open(wide_data).rows("test")
    assert content["counts"] == {"real": len(rows), "test": 48, "uniform": 48}
    assert content["data"]["trained_on"] is False
    assert content["photometry_was_trained_on"] is True  # by default
    control = content["control"]
    assert set(control["attributes"]["uniform"]["size"]) == {"photometry", "judge"}
    assert set(control["attributes"]["uniform"]["brightness"]) == {"photometry"}
    assert control["attributes"]["uniform"]["redshift"] == {}
    assert control["instruments"]["ellipticity"]["judge"]["all"]["mae"]["value"] < 1e-5
    assert control["classes"]["real"]["groups"]["edge-on"]["value"] > 0.8
    assert control["classes"]["real"]["groups"]["merger"]["value"] < 0.2
    assert control["gaming"]["uniform"]["size"]["ratio"] > 0
    assert set(content["realism"]["statistics"]["table"]) == set(STATISTIC_NAMES)
    assert content["realism"]["statistics"]["mean"]["all"]["multiple"] > 1
    features = content["realism"]["features"]
    # A network of seconds' training draws nothing like a galaxy, and the random features see it.
    assert features["random"]["kid"]["multiple"] > 10
    assert features["random"]["neighbourhoods"]["precision"]["value"] < 0.5
    assert "needs" in features["random"]["frechet"]["left_out"]  # fewer images than features
    assert content["realism"]["real_or_fake"]["groups"]["all"]["pairs"] >= 20
    assert content["honesty"]["copies"]["held_out"] == len(rows)
    assert content["honesty"]["unsupported"]["uniform"] == 0
    assert content["validation"]["images"] == len(rows)
    # Each plot in light and in dark colours.
    assert (report / "report.html").read_text().count("data:image/png") == 2 * 9
    assert all(np.isfinite(list(numbers(content))))


def test_page_needs_nothing_else_and_shows_every_plot(report):
    page = (report / "report.html").read_text()
    assert not re.findall(r'(?:src|href|srcset)="(?!data:|#)', page)
    assert "<tr class=floor><th scope=row>mean, real against real</th>" in page
    assert "<script" not in page and "@import" not in page and "url(" not in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == page.count("<figure>") == len(list(report.glob("*.png"))) >= 7
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert "prefers-color-scheme: dark" in page
    assert page.count("<table") == page.count("</table>") >= 8
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page).lower().split()
    assert "No instrument here reads it" in page  # redshift


def test_compare_lays_reports_side_by_side(report, tmp_path, capsys):
    other = json.loads((report / "report.json").read_text())
    other["realism"]["real_or_fake"]["groups"]["all"]["accuracy"] = 0.625
    (tmp_path / "report.json").write_text(json.dumps(other))
    evaluate.main(["compare", str(report), str(tmp_path), "--out", str(tmp_path / "table.csv")])
    (line,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("real or fake"))
    assert line.endswith("0.625")
    with (tmp_path / "table.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["figure", str(report), str(tmp_path)]
    assert len(table) == len(from_plain(other).figures()) + 1


@pytest.mark.parametrize("content, text", [(None, "holds no report.json"), ("{}", "no report of this release")])
def test_compare_refuses_what_is_no_report(tmp_path, content, text):
    if content:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match=text):
        evaluate.main(["compare", str(tmp_path)])


def test_a_dataset_that_does_not_match_is_refused(trained, wide_data, tmp_path):
    data = PreparedDataset.open(wide_data)
    kind = {"kind": "display", "bands": BAND_NAMES, "classes": MORPHOLOGY_NAMES}
    sampler = SimpleNamespace(config=SimpleNamespace(**kind, image_size=128, attributes=("size",)))
    with pytest.raises(UserError, match=r"draws images of 128 pixels and .* holds 64 pixels"):
        subject.match(sampler, data, tmp_path)
    sampler.config = SimpleNamespace(**kind, image_size=64, attributes=("size", "stellar_mass"))
    with pytest.raises(UserError, match=r"trained with size, stellar_mass, but .* knows no stellar_mass"):
        subject.match(sampler, data, tmp_path)


def test_without_a_judge_the_report_says_so(trained, dataset_path, tmp_path, monkeypatch):
    def refuse(*_):
        raise UserError("16 galaxies for the judge are too few")

    monkeypatch.setattr(subject, "Judge", SimpleNamespace(of_dataset=refuse))
    monkeypatch.setattr(plots, "draw_all", lambda *_: {})
    # Without a network that takes time; photometry alone needs little.
    state = load_checkpoint(trained / "checkpoints/tiny/latest.pt")
    save_checkpoint(tmp_path / "c.pt", state)
    arguments = ["report", "--checkpoint", tmp_path / "c.pt", "--data", dataset_path, "--out", tmp_path / "out"]
    evaluate.main([str(a) for a in (*arguments, "--count", 20, "--steps", 1, "--device", "cpu")])
    content = json.loads((tmp_path / "out/report.json").read_text())
    assert content["judge"] == {"left_out": "16 galaxies for the judge are too few"}
    assert content["data"]["trained_on"] is True
    assert content["control"]["classes"]["test"] == {"left_out": "16 galaxies for the judge are too few"}
    assert "left_out" in content["realism"]["real_or_fake"]
    assert "left_out" in content["realism"]["features"]["statistics"]["neighbourhoods"]
    assert "left_out" in content["validation"] and "left_out" in content["honesty"]["copies"]
    page = (tmp_path / "out/report.html").read_text()
    assert "16 galaxies for the judge are too few" in page and "needs 40 images of the reference, has" in page


def test_measure_reads_png_jpeg_and_fits_alike(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    image = render_galaxies(1, seed=3)[0][0]
    picture = Image.fromarray(image.transpose(1, 2, 0))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.jpg", quality=100, subsampling=0)
    header = fits.Header({"BUNIT": "display"})
    fits.PrimaryHDU(image[:, ::-1], header).writeto(tmp_path / "c.fits")
    fits.PrimaryHDU(7.5 * image[:, ::-1].astype(float)).writeto(tmp_path / "d.fits")
    wide = np.pad(image, ((0, 0), (0, 0), (10, 10)))
    Image.fromarray(wide.transpose(1, 2, 0)).save(tmp_path / "e.png")
    names = ("a.png", "b.jpg", "c.fits", "d.fits", "e.png")
    evaluate.main(["measure", *(str(tmp_path / n) for n in names), "--out", str(tmp_path / "m.csv")])
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = photometry.measure(torch.from_numpy(image)[None].float() / 255)
    for row in rows:
        close = 0.02 if row["file"].endswith("jpg") else 0.005
        for name in ("size", "ellipticity", "concentration", "color"):
            if name == "color" and row["file"].endswith("d.fits"):  # nothing says which of its planes is redder
                assert row[name] == "" and "color left empty" in row["remark"]
                continue
            assert float(row[name]) == pytest.approx(float(expected.attribute(name)), abs=close), (row["file"], name)
    plain, _, display, counts, padded = rows
    assert float(display["brightness"]) == pytest.approx(float(plain["brightness"]), rel=1e-4)
    assert counts["brightness"] == "" and "counts" in counts["remark"]
    assert "central square of 84 x 64" in padded["remark"] and padded["size"] == plain["size"]


def test_measure_reduces_large_pictures_without_changing_sizes(tmp_path):
    images, _ = render_galaxies(1, seed=3, side=512)
    Image.fromarray(images[0].transpose(1, 2, 0)).save(tmp_path / "large.png")
    evaluate.main(["measure", str(tmp_path / "large.png"), "--out", str(tmp_path / "m.csv")])
    with (tmp_path / "m.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    expected = photometry.measure(torch.from_numpy(images).float() / 255)
    assert row["side_px"] == "512" and "reduced from 512 to 256" in row["remark"]
    assert float(row["size"]) == pytest.approx(float(expected.size), rel=0.05)


@pytest.mark.parametrize(
    "name, content, text",
    [
        ("none.png", None, "there is no file .*none.png"),
        ("text.png", b"hello", "is no PNG, JPEG or FITS file"),
        ("cut.png", b"\x89PNG\r\n\x1a\n" + b"0" * 50, "is no PNG, JPEG or FITS file"),
        ("cut.fits", b"SIMPLE  =" + b" " * 100, "holds no image"),
    ],
)
def test_measure_refuses_what_is_no_picture(tmp_path, name, content, text):
    pytest.importorskip("astropy")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=text):
        evaluate.main(["measure", str(tmp_path / name), "--out", str(tmp_path / "m.csv")])
    assert not (tmp_path / "m.csv").exists()


def test_measure_refuses_a_picture_that_is_too_small(tmp_path):
    Image.new("RGB", (63, 80)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match="63 x 80 pixels: at least 64"):
        evaluate.main(["measure", str(tmp_path / "small.png"), "--out", str(tmp_path / "m.csv")])


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ["report", "--checkpoint", "c", "--data", "d", "--out", "o", "--statmorph", "3"]
    needed = "scipy, sklearn, matplotlib, jinja2, statmorph, photutils"
    with pytest.raises(UserError, match=f"needs {needed}: python -m pip install -r requirements-eval"):
        evaluate.main(options)


@pytest.mark.parametrize(
    "options, text",
    [
        ([], "the following arguments are required: COMMAND"),
        (["report", "--data", "d", "--out", "o"], "the following arguments are required: --checkpoint"),
        (["report", "--checkpoint", "c", "--data", "d", "--out", "o", "--count", "3"], "3 must lie between 20 and"),
        (["validate", "--data", "nowhere"], "nowhere holds no prepared dataset"),
        (["report", "--checkpoint", "no.pt", "--data", "d", "--out", "o"], "there is no checkpoint no.pt"),
    ],
)
def test_mistakes_are_one_sentence(options, text):
    with pytest.raises(UserError, match=re.escape(text)):
        evaluate.main(options)


def test_help_needs_neither_torch_nor_science_libraries():
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(['torch', 'scipy', 'matplotlib', 'pandas'])); "
        "sys.argv = ['evaluate.py', '--help']; runpy.run_path('evaluate.py', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "python evaluate.py report" in result.stdout


def test_a_mistake_ends_with_status_2(tmp_path):
    result = run_script("evaluate.py", "compare", "nothing", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip() == (
        "evaluate.py: error: nothing holds no report.json: make one with evaluate.py report"
    )


def test_every_figure_that_families_are_compared_by_is_in_a_report(report):
    from studies import families

    rows = families.rows_of(read_report(report))
    # Galaxies of a run of seconds may have no source to measure; the rows are there all the same.
    assert {"Half-light radius, judge: Spearman", "Half-light radius: gaming gap"} <= set(rows)
    assert rows["drawing [ms an image]"] > 0
    assert rows["the same, times real from real"] > 1
    assert rows["suspected copies (1 % is expected)"] is not None
