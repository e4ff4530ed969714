"""Galaxy Zoo 2 tables: classes, attributes, joins, and damaged files."""

import bz2
import csv
import gzip
import io
import lzma
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config_physics import PAPER_ATTRIBUTES
from galaxies.common.attributes import read_attribute_option
from galaxies.common.errors import UserError
from galaxies.datasets.sources import galaxy_zoo as gz
from galaxies.tables import opening

# smooth, features, edge-on, odd, merger, round, in-between, cigar, votes; the class by each rule
GALAXIES = {
    "587722981741363101": ((0.3, 0.7, 0.1, 0.2, 0.1, 0.5, 0.5, 0.0, 20), "spiral", "spiral"),
    "587722981741363102": ((0.7, 0.3, 0.0, 0.1, 0.0, 1.0, 0.0, 0.0, 40), "elliptical", "elliptical"),
    "587722981741363103": ((0.5, 0.5, 0.0, 0.9, 0.5, 0.0, 1.0, 0.0, 60), "merger", "merger"),
    "587722981741363104": ((0.2, 0.8, 0.9, 0.2, 0.0, 0.0, 0.0, 1.0, 30), "edge-on", "edge-on"),
    # One voter answered "odd" and then "merger": the ungated rule believes it.
    "587722981741363105": ((0.9, 0.1, 0.0, 0.05, 0.9, 0.5, 0.0, 0.5, 25), "elliptical", "merger"),
    "587722981741363106": ((0.7, 0.3, 0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 35), "elliptical", "edge-on"),
    "587722981741363107": ((0.5, 0.5, 0.5, 0.2, 0.4, 0.0, 0.0, 0.0, 22), None, None),  # limits are exclusive
}
COLUMNS = (gz.SMOOTH, gz.FEATURES, gz.EDGE_ON, gz.ODD, gz.MERGER, gz.ROUND, gz.IN_BETWEEN, gz.CIGAR)


def votes_table() -> pd.DataFrame:
    rows = []
    for object_id, (values, _, _) in GALAXIES.items():
        row = {"dr7objid": object_id, "gz2_class": "Er", "total_votes": values[-1]}
        for name, value in zip(COLUMNS, values, strict=False):
            row[name + "_debiased"] = value
            row[name + "_weighted_fraction"] = 1 - value
        rows.append(row)
    return pd.DataFrame(rows)


def write_folder(folder: Path, votes=None, mapping=None, sample=None) -> Path:
    ids = list(GALAXIES)
    (votes_table() if votes is None else votes).to_csv(folder / "gz2_hart16.csv", index=False)
    if mapping is None:
        mapping = pd.DataFrame({"objid": ids, "sample": "original", "asset_id": range(10, 10 + len(ids))})
    mapping.to_csv(folder / "gz2_filename_mapping.csv", index=False)
    if sample is not None:
        sample.to_csv(folder / "gz2sample.csv", index=False)
    return folder


def sample_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "PETROMAG_MR": ["-21.5", "-9999", "0", "-20"],
            "OBJID": list(GALAXIES)[:4],
            "REDSHIFT": ["0.05", "-9999.0", "", "inf"],
            "PETROR50_R_KPC": ["4.5", "-9999", "0", "3"],
            "PETROR90_R": ["10", "-9999", "8", "6"],
            "STELLAR_MASS": ["10.5", "-99", "nan", "0"],
        }
    )


@pytest.mark.parametrize(("rule", "place"), [("gated", 1), ("paper", 2)])
def test_classes(tmp_path, rule, place):
    catalogue = gz.read_catalogue(write_folder(tmp_path), rule)
    expected = {i: row[place] for i, row in GALAXIES.items() if row[place]}
    assert dict(zip(catalogue.galaxies.object_id, catalogue.galaxies.morphology, strict=True)) == expected
    assert catalogue.unused == 1
    assert catalogue.unmapped == 0
    assert catalogue.counts == {name: list(expected.values()).count(name) for name in catalogue.counts}
    assert catalogue.galaxies.image.tolist() == [f"{10 + i}.jpg" for i in range(6)]


def test_priority_is_merger_edge_on_elliptical_spiral():
    everything = pd.DataFrame([dict.fromkeys(COLUMNS, 0.95)])
    everything[gz.FEATURES] = 0.9
    order = []
    for column in (gz.MERGER, gz.EDGE_ON, gz.SMOOTH, gz.FEATURES):
        order.append(gz.classify(everything).iloc[0])
        everything[column] = 0.0 if column != gz.SMOOTH else 0.1
    assert order == ["merger", "edge-on", "elliptical", "spiral"]
    assert gz.classify(everything).iloc[0] is None


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        (gz.SMOOTH, 0.6, None),
        (gz.SMOOTH, 0.61, "elliptical"),
        (gz.FEATURES, 0.5, None),
        (gz.FEATURES, 0.51, "spiral"),
        (gz.MERGER, 0.4, None),
        (gz.MERGER, 0.41, "merger"),
        (gz.EDGE_ON, 0.5, None),
        (gz.EDGE_ON, 0.51, "edge-on"),
    ],
)
def test_limits_are_exclusive(column, value, name):
    votes = pd.DataFrame([dict.fromkeys(COLUMNS, 0.0) | {column: value}])
    assert gz.classify(votes, "paper").iloc[0] == name


def test_smooth_must_exceed_features():
    votes = pd.DataFrame([dict.fromkeys(COLUMNS, 0.0)])
    votes[gz.SMOOTH] = votes[gz.FEATURES] = 0.7
    assert gz.classify(votes).iloc[0] == "spiral"


@pytest.mark.parametrize("missing", [gz.MERGER, gz.ODD])
def test_a_missing_fraction_meets_no_condition(tmp_path, missing):
    votes = votes_table()
    votes.loc[2, missing + "_debiased"] = np.nan
    catalogue = gz.read_catalogue(write_folder(tmp_path, votes), allow_empty_class=True)
    assert catalogue.counts["merger"] == 0
    assert catalogue.unused == 2


def test_weighted_fractions_are_other_columns(tmp_path):
    catalogue = gz.read_catalogue(write_folder(tmp_path), "paper", "weighted", allow_empty_class=True)
    # 1 - value turns the spiral's merger fraction 0.1 into 0.9.
    assert catalogue.galaxies.morphology.iloc[0] == "merger"


def test_attributes_and_sentinels(tmp_path):
    galaxies = gz.read_catalogue(write_folder(tmp_path, sample=sample_table())).galaxies
    expected = {
        "redshift": [0.05, None, None, None, None, None],
        "petro_r50_kpc": [4.5, None, None, 3.0, None, None],
        "absolute_magnitude": [-21.5, None, None, -20.0, None, None],
        "stellar_mass": [10.5, None, None, None, None, None],
        "frame_scale": [0.2, None, 0.16, 0.12, None, None],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(galaxies[name], np.array(values, dtype=float), err_msg=name)


def test_vote_attributes(tmp_path):
    galaxies = gz.read_catalogue(write_folder(tmp_path)).galaxies
    # The unused galaxy does not take part in the normalisation: 20 to 60 votes.
    np.testing.assert_allclose(galaxies.vote_count, [0.3, 0.65, 1.0, 0.475, 0.3875, 0.5625])
    np.testing.assert_allclose(galaxies.vote_smoothness, [0.44, 0.76, 0.6, 0.36, 0.92, 0.76])
    np.testing.assert_allclose(galaxies.vote_elongation, [0.225, 0.0, 0.45, 0.9, 0.45, np.nan])


def test_random_redshift_belongs_to_the_object(tmp_path):
    galaxies = gz.read_catalogue(write_folder(tmp_path)).galaxies
    shuffled = votes_table().iloc[::-1]
    other = gz.read_catalogue(write_folder(tmp_path, shuffled)).galaxies
    assert other.object_id.tolist() == galaxies.object_id.tolist()[::-1]
    assert other.random_redshift.tolist() == galaxies.random_redshift.tolist()[::-1]
    draws = np.array([gz.random_redshift(str(i)) for i in range(4000)])
    assert 0 <= draws.min() < 0.001
    assert 0.499 < draws.max() < 0.5
    assert abs(draws.mean() - 0.25) < 0.01
    assert abs(draws.var() - 0.25 / 12) < 0.001


def test_columns_in_any_order_case_and_packing(tmp_path):
    reference = gz.read_catalogue(write_folder(tmp_path, sample=sample_table())).galaxies
    votes = votes_table().iloc[:, ::-1]
    write_folder(tmp_path, votes, sample=sample_table().rename(columns=str.lower))
    packed = tmp_path / "gz2_hart16.csv.gz"
    plain = tmp_path / "gz2_hart16.csv"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    plain.unlink()
    pd.testing.assert_frame_equal(gz.read_catalogue(tmp_path).galaxies, reference)
    packed.rename(plain)  # packed under the plain name, as some browsers leave it
    pd.testing.assert_frame_equal(gz.read_catalogue(tmp_path).galaxies, reference)


def as_fits(table: pd.DataFrame) -> bytes:
    fits = pytest.importorskip("astropy.io.fits")
    columns = []
    for name in table:
        numbers = pd.to_numeric(table[name], errors="coerce")
        whole = name.endswith("id") and (pd.to_numeric(table[name]) % 1 == 0).all()
        values = table[name].astype("int64").to_numpy() if whole else numbers.to_numpy(np.float64)
        columns.append(fits.Column(name, "K" if whole else "D", array=values))
    content = io.BytesIO()
    fits.BinTableHDU.from_columns(columns).writeto(content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "rewritten"),
    [
        ("gz2_hart16.csv", lambda t: t.to_csv(index=False, sep=";").encode()),
        ("gz2_hart16.csv", lambda t: t.to_csv(index=False, sep=";", decimal=",").encode()),
        ("gz2_hart16.csv", lambda t: t.to_csv(index=False, sep="\t").encode("utf-16")),
        ("gz2_hart16.csv", lambda t: t.to_csv(index=False, quoting=csv.QUOTE_ALL).encode()),
        ("gz2_hart16.csv", lambda t: b"# Hart et al. 2016\n" + t.to_csv().replace("\n", "\r").encode()),
        ("gz2_hart16.csv.xz", lambda t: lzma.compress(t.to_csv(index=False).encode())),
        ("gz2_hart16.csv.bz2", lambda t: bz2.compress(t.to_csv(index=False).encode())),
        ("gz2_hart16.fits", lambda t: as_fits(t.drop(columns="gz2_class"))),
        ("gz2_hart16.fits.gz", lambda t: gzip.compress(as_fits(t.drop(columns="gz2_class")))),
    ],
)
def test_tables_in_other_forms_give_the_same_galaxies(tmp_path, name, rewritten):
    reference = gz.read_catalogue(write_folder(tmp_path)).galaxies
    (tmp_path / "gz2_hart16.csv").unlink()
    (tmp_path / name).write_bytes(rewritten(votes_table()))
    pd.testing.assert_frame_equal(gz.read_catalogue(tmp_path).galaxies, reference)


def test_two_files_of_a_table(tmp_path):
    plain = write_folder(tmp_path) / "gz2_hart16.csv"
    reference = gz.read_catalogue(tmp_path).galaxies
    (tmp_path / "gz2_hart16.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    pd.testing.assert_frame_equal(gz.read_catalogue(tmp_path).galaxies, reference)
    plain.write_bytes(plain.read_bytes().replace(b",", b";"))
    with pytest.raises(UserError, match=r"gz2_hart16\.csv and gz2_hart16\.csv\.gz are both there and differ"):
        gz.read_catalogue(tmp_path)


def test_impossible_votes_are_unknown_and_counted(tmp_path, capsys):
    votes = votes_table().astype({"total_votes": object})
    votes.loc[0, gz.FEATURES + "_debiased"] = 70  # percent, which is no fraction
    votes.loc[1, gz.FEATURES + "_debiased"] = -0.2
    votes.loc[2, "total_votes"] = "-9999"
    catalogue = gz.read_catalogue(write_folder(tmp_path, votes), allow_empty_class=True)
    assert catalogue.counts["spiral"] == 0
    assert np.isnan(catalogue.galaxies["vote_count"][catalogue.galaxies["object_id"] == "587722981741363103"]).all()
    printed = capsys.readouterr().out
    assert f"impossible and left as unknown in {tmp_path / 'gz2_hart16.csv'}: {gz.FEATURES}_debiased 2 (" in printed
    assert "total_votes 1 (-9999)" in printed


def test_a_picture_shows_one_galaxy(tmp_path):
    ids = list(GALAXIES)
    mapping = pd.DataFrame({"objid": [*ids[:6], ids[0], "587799999999999999"], "asset_id": [1, 2, 3, 4, 5, 5, 9, 7]})
    catalogue = gz.read_catalogue(write_folder(tmp_path, mapping=mapping))
    assert catalogue.galaxies.asset_id.tolist() == ["1", "2", "3", "4", "5"]
    assert catalogue.unmapped == 1


def test_ids_need_not_have_18_digits(tmp_path):
    votes = votes_table()
    votes["dr7objid"] = ["7", "12", "1237648702966988820", "4", "5", "6", "8"]
    mapping = pd.DataFrame({"objid": votes["dr7objid"], "asset_id": range(7)})
    galaxies = gz.read_catalogue(write_folder(tmp_path, votes, mapping)).galaxies
    assert galaxies.object_id.tolist()[:3] == ["7", "12", "1237648702966988820"]


@pytest.mark.parametrize("name", ["gz2_hart16.csv", "gz2_filename_mapping.csv"])
def test_missing_file(tmp_path, name):
    (write_folder(tmp_path) / name).unlink()
    with pytest.raises(UserError, match=f"{name} .*is missing"):
        gz.read_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("gz2_hart16.csv", gz.ODD + "_debiased"),
        ("gz2_hart16.csv", "total_votes"),
        ("gz2_filename_mapping.csv", "asset_id"),
        ("gz2sample.csv", "OBJID"),
    ],
)
def test_missing_column(tmp_path, file, column):
    path = write_folder(tmp_path, sample=sample_table()) / file
    pd.read_csv(path, dtype=str).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(UserError, match=f"{file} has no column {column.lower()}"):
        gz.read_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"dr7objid,total_votes\n", "has no column"),
        (b"\x1f\x8b\x08\x00broken", "cannot be read"),
        (b"dr7objid,\x81\xfe\n1,2\n", "cannot be read .its text is neither"),
        (b"dr7objid,total_votes\n1,2\x00\n", "cannot be read .it holds NUL bytes"),
        (b"dr7objid," + b"x" * 600_000 + b"\n1,2\n", "cannot be read .line 1 has more than"),
        (b'dr7objid,total_votes\n"1,2\n3,4\n', "cannot be read"),
    ],
)
def test_not_a_table(tmp_path, content, message):
    (write_folder(tmp_path) / "gz2_hart16.csv").write_bytes(content)
    with pytest.raises(UserError, match=f"gz2_hart16.csv {message}"):
        gz.read_catalogue(tmp_path)


def test_half_a_download(tmp_path):
    file = write_folder(tmp_path) / "gz2_hart16.csv"
    packed = gzip.compress(file.read_bytes() + os.urandom(4000).hex().encode())
    file.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"gz2_hart16\.csv cannot be read .*download it again"):
        gz.read_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("5.87738E+17", "'5.87738E\\+17'"),
        ("587722981741363101.0", "'587722981741363101.0'"),
        ("", "an empty cell"),
        ("-1", "'-1'"),
        ("9" * 400, f"'{'9' * 60}…'"),
        ("\x1b[2J1", r"'\\x1b\[2J1'"),
        ("587722981741363102", "repeated ids, such as 587722981741363102"),
    ],
)
def test_damaged_object_id(tmp_path, value, message):
    votes = votes_table()
    votes.loc[0, "dr7objid"] = value
    with pytest.raises(UserError, match=rf"column dr7objid of .*gz2_hart16\.csv.* holds .*{message}"):
        gz.read_catalogue(write_folder(tmp_path, votes))


@pytest.mark.parametrize("step", [128, 1000])
def test_rounded_object_ids(tmp_path, step):
    votes = votes_table()
    votes["dr7objid"] = [str((int(i) + 5000 * n) // step * step) for n, i in enumerate(votes["dr7objid"])]
    with pytest.raises(UserError, match=r"column dr7objid of .* holds rounded ids"):
        gz.read_catalogue(write_folder(tmp_path, votes))


def test_text_where_a_number_belongs(tmp_path):
    votes = votes_table().astype({"total_votes": object})
    votes.loc[3, "total_votes"] = "many"
    with pytest.raises(UserError, match=r"column total_votes of .* holds 'many'"):
        gz.read_catalogue(write_folder(tmp_path, votes))


def test_a_bomb_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MAX_TABLE_BYTES", 1_000_000)
    file = write_folder(tmp_path) / "gz2_hart16.csv"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(gzip.compress(lines[0] + lines[1] * 20_000))
    with pytest.raises(UserError, match=r"gz2_hart16\.csv cannot be read \(it goes on after 1 MB"):
        gz.read_catalogue(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "C:\\secret", "1/../../2", "..", ""])
def test_no_path_passes_for_the_name_of_a_picture(tmp_path, name):
    mapping = pd.DataFrame({"objid": list(GALAXIES), "asset_id": ["1", "2", name, "4", "5", "6", "7"]})
    with pytest.raises(UserError, match=r"column asset_id of .*, row 4 holds .* (and not a whole number|and no id)"):
        gz.read_catalogue(write_folder(tmp_path, mapping=mapping))


def test_tables_that_do_not_belong_together(tmp_path):
    mapping = pd.DataFrame({"objid": ["587799999999999999"], "asset_id": ["1"]})
    with pytest.raises(UserError, match=r"no dr7objid of .*gz2_hart16.csv is in column objid"):
        gz.read_catalogue(write_folder(tmp_path, mapping=mapping))


def test_empty_class(tmp_path):
    folder = write_folder(tmp_path, votes_table().drop(index=2))
    with pytest.raises(UserError, match=r"class merger \(.*line 21, column 9\) takes none of the 6 galaxies"):
        gz.read_catalogue(folder)
    assert gz.read_catalogue(folder, allow_empty_class=True).counts["merger"] == 0


REAL = os.environ.get("GALAXY_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="GALAXY_REAL_DATA names no folder of real galaxies")
@pytest.mark.parametrize(
    ("rule", "counts", "unused"), [("gated", (148, 161, 82, 154), 45), ("paper", (113, 142, 160, 169), 6)]
)
def test_real_galaxies(rule, counts, unused):
    catalogue = gz.read_catalogue(Path(REAL, "gz2"), rule)
    assert tuple(catalogue.counts.values()) == counts
    assert catalogue.unused == unused
    assert catalogue.unmapped == 0
    galaxies = catalogue.galaxies
    assert galaxies.redshift.between(0.013, 0.058).sum() == galaxies.redshift.notna().sum() > 100
    for name, low, high in zip(PAPER_ATTRIBUTES, (0.3, 0.2, 0, 0), (1, 1, 0.9, 0.5), strict=True):
        assert galaxies[name].dropna().between(low, high).all()


# Columns of the tables that are attributes of a user's own


def own_folder(tmp_path, **columns):
    """Votes with a column of their own, and a sample whose rows stand in another order, one of them twice."""
    votes = votes_table().assign(ra=[10.0 + k for k in range(7)], stellar=[f"{k}.5" for k in range(7)])
    sample = sample_table().assign(**{"PETROTHETA": ["3", "-9999", "5.5", "7"], "STELLAR": "9"} | columns)
    sample = pd.concat([sample[::-1], sample[:1].assign(PETROTHETA="99")])
    return write_folder(tmp_path, votes=votes, sample=sample)


def test_named_columns_of_either_table_are_attributes(tmp_path, capsys):
    options = [read_attribute_option(text) for text in ("theta:column=petroTheta,unit=arcsec,scale=log", "stellar")]
    catalogue = gz.read_catalogue(own_folder(tmp_path), attributes=options)
    found = catalogue.galaxies.set_index("object_id")
    ids = [i for i, row in GALAXIES.items() if row[1]]
    # theta is of the sample, of which the first row with an id counts; stellar is of both, and the votes' counts.
    np.testing.assert_array_equal(found.loc[ids, "theta"], [3, np.nan, 5.5, 7, np.nan, np.nan])
    np.testing.assert_array_equal(found.loc[ids, "stellar"], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    theta, stellar = catalogue.own
    assert (theta.name, theta.unit, theta.scale, theta.low) == ("theta", "arcsec", "log", 3.0)
    assert stellar.low <= 0.53 and stellar.high >= 5.47  # of the galaxies that are used; the last one has no class
    assert "-9999" in capsys.readouterr().out


def test_columns_that_are_not_named_are_left_out(tmp_path):
    catalogue = gz.read_catalogue(own_folder(tmp_path))
    assert catalogue.own == () and not {"ra", "stellar", "petrotheta"} & set(catalogue.galaxies)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "width",
            r"no column width in .*hart16.csv, which --attribute width names, or in .*gz2sample.csv: .*petroth",
        ),
        ("letters:column=gz2_class", r"column gz2_class of .*hart16.csv, row 2 holds 'Er'"),
        ("same:column=petror90_r,low=1,high=2", None),
        ("redshift", "redshift is an attribute that the program knows"),
    ],
)
def test_columns_that_cannot_be_attributes(tmp_path, option, message):
    if message is None:
        assert gz.read_catalogue(own_folder(tmp_path), attributes=[read_attribute_option(option)]).own[0].high == 2
        return
    with pytest.raises(UserError, match=message):
        gz.read_catalogue(own_folder(tmp_path), attributes=[read_attribute_option(option)])


def test_without_the_sample_its_columns_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no column petrotheta in .*, and .*gz2sample.csv is missing: .*dr7objid"):
        gz.read_catalogue(write_folder(tmp_path), attributes=[read_attribute_option("petrotheta")])
