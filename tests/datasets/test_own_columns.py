"""Columns of a user's own table on their whole way: into a dataset, a run, requests, and onto the page."""

import csv
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import generate_from_checkpoint
import observe
import prepare_data
from benchmarks.serving import write_untrained
from config_physics import Config, attribute_table
from galaxies.common.attributes import attribute_defined
from galaxies.common.errors import UserError
from galaxies.datasets.attribute_support import value_limits
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.release import write_release
from tests.conftest import TINY, fork_script, render_galaxies

EW = 'halpha_ew:column=H_ALPHA_EQW,unit=Angstrom,scale=asinh,label="H-alpha EW"'
SFR = "sfr:scale=log,unit=solar masses / yr"


def table_of(count=48):
    rng = np.random.default_rng(1)
    names = render_galaxies(count)[1]
    columns = {"image": [f"{k}.png" for k in range(count)], "morphology": names}
    columns |= {"H_ALPHA_EQW": rng.normal(5, 40, count).round(3), "sfr": rng.lognormal(0, 2, count).round(5)}
    columns |= {"D4000": rng.uniform(1, 2, count).round(3), "plate": 7, "comment": "seen"}
    columns |= {"specobjid": 1237648720693755918 + np.arange(count), "seed": range(count), "empty": ""}
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for k, image in enumerate(render_galaxies(48)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{k}.png")
    return folder


def prepare(pictures, out, table, *options):
    labels = out.with_name(f"{out.name}.csv")
    table.to_csv(labels, index=False)
    given = ["labelled", "--images", str(pictures), "--labels", str(labels), "--out", str(out), "--crop", "1.0"]
    prepare_data.main([*given, "--workers", "1", *options])
    return out


@pytest.fixture(scope="module")
def dataset(pictures, tmp_path_factory):
    return prepare(pictures, tmp_path_factory.mktemp("data") / "own", table_of(), "--attribute", EW, "--attribute", SFR)


def test_named_columns_and_all_other_numbers_are_kept_and_the_rest_is_said(pictures, tmp_path, capsys):
    path = prepare(pictures, tmp_path / "d", table_of(), "--attribute", EW, "--attribute", SFR)
    said = capsys.readouterr().out
    assert "kept as attributes, as they stand" in said and ": d4000 (" in said
    assert f"ignored: comment of {tmp_path / 'd.csv'}, which is no attribute of the catalogue: it holds text" in said
    assert "ignored: plate" in said and "the same for every galaxy" in said
    assert "ignored: specobjid" in said and "as large as ids are" in said
    assert "ignored: seed" in said and "name the program cannot use" in said
    assert "ignored: empty" in said and "which is empty" in said
    data, table = PreparedDataset.open(path), table_of()
    known = data.attributes(("halpha_ew", "sfr", "d4000"), np.arange(48))
    assert np.allclose(known, table[["H_ALPHA_EQW", "sfr", "D4000"]].to_numpy(), rtol=1e-6)
    rows = {row["name"]: row for row in json.loads((path / "manifest.json").read_text())["own_attributes"]}
    assert list(rows) == ["halpha_ew", "sfr", "d4000"]
    ew, sfr, d4000 = rows.values()
    assert (ew["label"], ew["unit"], ew["scale"]) == ("H-alpha EW", "Angstrom", "asinh")
    assert (sfr["unit"], sfr["scale"], "softening" in sfr) == ("solar masses / yr", "log", False)
    assert ew["softening"] == pytest.approx(np.median(np.abs(table["H_ALPHA_EQW"])), rel=0.05)
    for name, column in (("halpha_ew", "H_ALPHA_EQW"), ("sfr", "sfr"), ("d4000", "D4000")):
        low, high = np.percentile(table[column], [0.5, 99.5])
        assert rows[name]["low"] <= low and rows[name]["high"] >= high
    assert d4000["low"] + 0.1 >= 1.0 and d4000["high"] < 2.1


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"sfr": ["1", "seven"] * 24}, [SFR], "column sfr of .*csv, row 3 holds 'seven': it is no number"),
        (
            {"sfr": ["1", "inf"] * 24},
            [SFR],
            "column sfr of .*csv, row 3 holds 'inf', and no galaxy has an infinite sfr",
        ),
        ({"sfr": 3.0}, [SFR], "attribute sfr is 3 for every galaxy"),
        ({"sfr": ""}, [SFR], "attribute sfr is known for no galaxy: every cell of column sfr is empty"),
        ({"sfr": [1.0, 0.0] * 24}, [SFR], "values such as 0 .column sfr., which have no logarithm"),
        ({}, ["sfr:scale=cube"], "its scale is 'cube', choose one of linear, log, asinh"),
        ({}, ["size:column=sfr"], "size is an attribute that the program knows"),
        ({}, ["count:column=sfr"], "count has a meaning of its own"),
        ({}, ["ssfr"], "has no column ssfr, which --attribute ssfr names: it has"),
        ({}, ["sfr", "sfr"], "--attribute names sfr 2 times"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(pictures, tmp_path, change, options, said):
    flags = [word for option in options for word in ("--attribute", option)]
    with pytest.raises(UserError, match=said) as caught:
        prepare(pictures, tmp_path / "d", table_of().assign(**change), *flags)
    assert "\n" not in str(caught.value) and not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.update(scale="cube"), "scale is 'cube'"),
        (lambda row: row.update(name="gini"), "gini is an attribute that the program knows"),
        (lambda row: row.update(name="SFR"), "not in small letters"),
        (lambda row: row.update(low=5, high=5), "must lie above"),
        (lambda row: row.pop("unit"), "unit"),
        (lambda row: row.update(label='a"b'), "NAME:KEY=VALUE"),
    ],
)
def test_a_manifest_whose_attributes_are_none_is_refused(dataset, tmp_path, change, said):
    for name in ("images.npy", "catalogue.csv"):
        (tmp_path / name).write_bytes((dataset / name).read_bytes())
    manifest = json.loads((dataset / "manifest.json").read_text())
    change(manifest["own_attributes"][1])
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=said):
        PreparedDataset.open(tmp_path)


def test_joined_datasets_have_the_attributes_of_all_and_must_mean_the_same(pictures, dataset, tmp_path):
    table = table_of().assign(object_id=[f"other{k}" for k in range(48)])
    table["sfr"] *= 1000
    other = prepare(pictures, tmp_path / "other", table.drop(columns="D4000"), "--attribute", SFR)
    prepare_data.main(["join", "--inputs", str(dataset), str(other), "--out", str(tmp_path / "both")])
    rows = {row.name: row for row in PreparedDataset.open(tmp_path / "both").layout.own}
    first = {row.name: row for row in PreparedDataset.open(dataset).layout.own}
    assert list(rows)[:3] == ["halpha_ew", "sfr", "d4000"]
    assert rows["sfr"].low == first["sfr"].low and rows["sfr"].high > first["sfr"].high
    linear = prepare(pictures, tmp_path / "linear", table, "--attribute", "sfr:unit=solar masses / yr")
    with pytest.raises(
        UserError, match=r"has sfr with the scale 'log', and .*linear with 'linear': prepare them alike"
    ):
        prepare_data.main(["join", "--inputs", str(dataset), str(linear), "--out", str(tmp_path / "none")])


def test_an_outlier_is_far_on_the_scale_of_its_attribute(dataset):
    data = PreparedDataset.open(dataset)
    assert value_limits(data, ("sfr",)) == {}
    data.catalogue.loc[0, "sfr"] = 9e19  # twenty decades; 15 interquartile ranges are some 18
    low, high = value_limits(data, ("sfr",))["sfr"]
    assert 0 < low < data.catalogue["sfr"].min() and 1e15 < high < 9e19


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    options = ["--data", dataset, "--run", "own", "--attributes", "size,halpha_ew,sfr", "--pretrain-epochs", 1]
    result = fork_script("galaxy.py", *options, "--epochs", 1, "--checkpoint-every", 1, *TINY, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_a_run_keeps_what_its_attributes_are_and_a_release_too(run, dataset, tmp_path):
    state = load_checkpoint(run / "checkpoints/own/latest.pt")
    rows = {row.name: row.definition() for row in PreparedDataset.open(dataset).layout.own}
    assert state["config"]["attribute_definitions"] == [rows["halpha_ew"], rows["sfr"]]
    tested = next(record for record in state["metrics"] if record["kind"] == "test")
    assert {row["name"]: row.get("r2") for row in state["attributes"]} == {
        name: tested.get(f"r2_{name}") for name in ("size", "halpha_ew", "sfr")
    }
    path = write_release(state, tmp_path / "released", torch.float32, {})
    sampler = GalaxySampler.from_checkpoint(path, "cpu")
    assert [row.definition() for row in sampler.attributes[1:]] == [rows["halpha_ew"], rows["sfr"]]
    served = ServedModel.load(path, "cpu")
    assert served.told == ServedModel.load(run / "checkpoints/own/latest.pt", "cpu").told != {}
    del state["attributes"][1]["r2"]
    assert served.told == {**served.told, "halpha_ew": tested["r2_halpha_ew"]}


def test_a_run_goes_on_and_another_starts_from_it(run, pictures, dataset, tmp_path):
    result = fork_script("resume_training.py", "--run", "own", "--data", dataset, "--epochs", 2, cwd=run)
    assert result.returncode == 0, result.stderr
    start = ["--start-from", run / "checkpoints/own/latest.pt", "--dry-run"]
    result = fork_script("galaxy.py", "--data", dataset, *start, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "attributes=size,halpha_ew,sfr" in result.stdout
    other = prepare(pictures, tmp_path / "other", table_of().drop(columns="sfr"), "--attribute", EW)
    result = fork_script("galaxy.py", "--data", other, *start, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "left out: sfr (there is no such column in" in result.stdout
    assert "attributes=size,halpha_ew " in result.stdout
    wrong = prepare(pictures, tmp_path / "wrong", table_of(), "--attribute", "halpha_ew:column=H_ALPHA_EQW,unit=nm")
    result = fork_script("galaxy.py", "--data", wrong, *start, cwd=tmp_path)
    assert result.returncode == 2 and "knows halpha_ew in Angstrom" in result.stderr


def test_networks_are_told_attributes_on_their_scales():
    lines = ('a:label="a",unit="",scale=log,low=0.01,high=100.0', 'b:label="b",unit="",scale=linear,low=0.0,high=4.0')
    config = Config(attributes=("a", "b"), attribute_definitions=lines)
    values = torch.tensor([[1.0, 1.0], [0.1, math.nan]])
    _, scaled, known = condition_vector(torch.tensor([0, 1]), values, config)
    assert torch.allclose(scaled, torch.tensor([[0.5, 0.25], [0.25, 0.0]]))
    assert known.tolist() == [[1, 1], [1, 0]]


def test_galaxies_are_alike_on_the_scales_of_their_attributes():
    row = attribute_defined('a:label="a",unit="",scale=log,low=0.001,high=1000.0')
    values = torch.logspace(-3, 3, 601)[:, None]
    classes = torch.zeros(601, dtype=torch.int64)
    asked = torch.tensor([[0.0015], [400.0], [1e7]])
    found = Population(classes, values, (row,)).support(classes[:3], asked)
    assert found.verdicts.tolist() == [0, 0, 2]
    ten, hundred = Population(classes, values, (row,)).support(classes[:2], torch.tensor([[1e4], [1e5]])).nearest
    assert float(hundred / ten) == pytest.approx(2, rel=1e-4)  # one and two decades beyond the last
    # What is drawn beside a request comes from galaxies that resemble it on the scale.
    both = torch.cat([values, torch.arange(601.0)[:, None]], 1)
    plain = attribute_table(("redshift",))
    request = torch.tensor([[0.01, math.nan]]).repeat(50, 1)
    drawn = Population(classes, both, (row, *plain)).draw(classes[:50], request, range(50))
    assert (drawn[:, 1] - 100).abs().max() <= 7  # of the 12 nearest, six on either side


@pytest.fixture(scope="module")
def untrained_own(tmp_path_factory):
    path = tmp_path_factory.mktemp("untrained") / "own" / "latest.pt"
    lines = ('halpha_ew:label="H-alpha EW",unit="Å",scale=asinh,softening=5.0,low=-10.0,high=200.0',)
    lines += ('sfr:label="Star formation",unit="",scale=log,low=0.01,high=100.0',)
    config = Config(width=4, latent_dim=8, attributes=("size", "halpha_ew", "sfr"), attribute_definitions=lines)
    write_untrained(path, config)
    return path


def generate(path, out, *options):
    generate_from_checkpoint.main(["--checkpoint", str(path), "--count", "2", "--out", str(out), *options])
    with (out / "catalogue.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "options",
    [
        ["--morphology", "spiral", "--halpha-ew", "-1.5e0", "--sfr=0.25"],
        ["--morphology", "spiral", "--set", "halpha_ew=-1.5", "--set", "sfr=.25", "--format", "fits,png"],
    ],
)
def test_galaxies_are_asked_for_by_the_names_of_columns(untrained_own, tmp_path, options):
    for row in generate(untrained_own, tmp_path / "out", *options):
        assert (float(row["requested_halpha_ew"]), float(row["requested_sfr"])) == (-1.5, 0.25)
        assert float(row["requested_size"]) > 0


def test_tables_of_requests_have_columns_of_them(untrained_own, tmp_path):
    (tmp_path / "wanted.csv").write_text("morphology,HALPHA_EW,sfr\nspiral,12,\nmerger,,3\n")
    words = ["--checkpoint", str(untrained_own), "--requests", str(tmp_path / "wanted.csv"), "--out"]
    generate_from_checkpoint.main([*words, str(tmp_path / "out")])
    rows = pd.read_csv(tmp_path / "out/catalogue.csv")
    assert rows["requested_halpha_ew"][0] == 12 and rows["requested_sfr"][1] == 3
    (tmp_path / "wanted.csv").write_text("morphology,sfr\nspiral,0\n")
    with pytest.raises(UserError, match=r"row 2: sfr is '0': it takes a number from 1e-30 to 1e\+20"):
        generate_from_checkpoint.main([*words, str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--halpha", "5"], "unrecognized arguments: --halpha, where .* has the attributes size, halpha_ew, sfr"),
        (["--sfr", "many"], "sfr is 'many': it takes a number from"),
        (["--sfr", "-3"], "sfr is '-3': it takes a number from"),
        (["--sfr", "1", "--sfr", "2"], "sfr is there more than once"),
        (["--sfr", "1", "--set", "sfr=2"], "sfr is there more than once"),
        (["--set", "ssfr=2"], "there is no attribute 'ssfr'"),
        (["--redshift", "0.1"], "redshift is unknown to this checkpoint: it knows size, halpha_ew, sfr"),
    ],
)
def test_other_options_are_refused_in_a_sentence(untrained_own, tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        generate(untrained_own, tmp_path / "out", "--morphology", "spiral", *options)


def test_attributes_of_another_checkpoint_are_refused_in_a_sentence(untrained, tmp_path):
    known = "size, brightness, ellipticity, redshift"
    with pytest.raises(UserError, match=f"unrecognized arguments: --sfr, where .*latest.pt has the attributes {known}"):
        generate(untrained["gan"], tmp_path / "out", "--morphology", "spiral", "--sfr", "3")
    words = ["galaxies", "--survey", "LSST", "--checkpoint", str(untrained["gan"]), "--out", str(tmp_path / "o")]
    with pytest.raises(UserError, match="unrecognized arguments: --sfr, where"):
        observe.main([*words, "--sfr", "3"])


def test_help_with_a_checkpoint_lists_its_attributes(untrained_own, capsys):
    with pytest.raises(SystemExit):
        generate_from_checkpoint.main(["--checkpoint", str(untrained_own), "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--halpha-ew VALUE H-alpha EW [Å], about -10 to 200: column of the catalogue" in said


def test_the_page_knows_scales_and_what_a_picture_tells(untrained_own):
    model = ServedModel.load(untrained_own, "cpu")
    model = ServedModel(model.sampler, provenance=model.provenance, told={"halpha_ew": 0.04, "sfr": 0.6})
    client = create_app([model]).test_client()
    size, ew, sfr = client.get("/api/model").json["models"][0]["attributes"]
    assert (size["scale"], size["softening"], size["told"], size["is_told"]) == ("linear", None, None, None)
    assert (ew["scale"], ew["softening"], ew["unit"], ew["told"], ew["is_told"]) == ("asinh", 5.0, "Å", 0.04, False)
    assert (sfr["scale"], sfr["is_told"], sfr["measured"]) == ("log", True, False)
    answer = client.get("/api/measure?morphology=spiral&halpha_ew=-3&sfr=0.5").json
    assert answer["attributes"]["sfr"]["requested"] == 0.5
    tiles = client.get("/api/sheet.json?morphology=spiral&sweep=sfr&steps=5").json["tiles"]
    swept = [tile["attributes"]["sfr"]["requested"] for tile in tiles]
    assert np.allclose(swept, [0.01, 0.1, 1, 10, 100], rtol=1e-5)
    for query, said in (("sfr=0", "sfr is '0': it takes a number from"), ("ssfr=1", "there is no parameter 'ssfr'")):
        answer = client.get(f"/api/measure?morphology=spiral&{query}")
        assert answer.status_code == 400 and said in answer.json["error"]
