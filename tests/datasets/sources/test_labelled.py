"""Tables of labels as people bring them: what becomes of each, or the sentence that says why not."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galaxies.common.errors import UserError
from galaxies.datasets.sources.labelled import Labels, read_labels

NAN = np.nan
HEAD = "image,morphology,object_id,redshift\n"


def labels_of(tmp_path: Path, content: str | bytes) -> pd.DataFrame:
    (tmp_path / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labels(tmp_path / "labels.csv").galaxies


FORMS = {
    "R's row names": '"","image","morphology","object_id","redshift"\n"1","a.png","spiral","001",0.05\n'
    '"2","b.png","merger","002",NA\n',
    "a German spreadsheet": "\ufeffimage;morphology;object_id;redshift\r\na.png;Spiral;001;0,05\r\n"
    "b.png;Mergers;002;\r\n;;;\r\n",
    "Unicode text of a spreadsheet": ("image\tmorphology\tobject_id\tredshift\r\na.png\tspiral\t001\t0.05\r\n"
                                      "b.png\tmerger\t002\t\r\n").encode("utf-16"),
    "CasJobs": "#Table1\n" + HEAD + "a.png,spiral,001,0.05\nb.png,merger,002,-9999\n",
    "TOPCAT": HEAD + "a.png,spiral,001,0.05\nb.png,merger,002,null\n",
    "ECSV": "# %ECSV 1.0\n# ---\n# - {name: image, datatype: string}\n# schema: astropy-2.0\n"
    'image morphology object_id redshift\na.png spiral 001 0.05\nb.png merger 002 ""\n',
    "numpy.savetxt": "# image,morphology,object_id,redshift\na.png,spiral,001,5.0e-02\nb.png,merger,002,nan\n",
    "with text in quotes": "image,morphology,object_id,redshift\n'a.png','spiral','001','0.05'\n"
    "'b.png','merger','002','--'\n",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_same_labels(tmp_path, form):
    galaxies = labels_of(tmp_path, FORMS[form])
    assert galaxies["image"].tolist() == ["a.png", "b.png"]
    assert galaxies["morphology"].tolist() == ["spiral", "merger"]
    assert galaxies["object_id"].tolist() == ["001", "002"]
    np.testing.assert_array_equal(galaxies["redshift"], [0.05, NAN])


def test_labels_as_a_fits_table(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    content = io.BytesIO()
    columns = [
        fits.Column("IMAGE", "9A", array=["a.png", "b.png"]),
        fits.Column("MORPHOLOGY", "9A", array=["EDGE_ON", "merger"]),
        fits.Column("OBJECT_ID", "K", array=[1237648702966988820, 1237648702966988821]),
        fits.Column("REDSHIFT", "E", array=[0.05, -9999.0]),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(content)
    galaxies = labels_of(tmp_path, content.getvalue())
    assert galaxies["object_id"].tolist() == ["1237648702966988820", "1237648702966988821"]
    assert galaxies["morphology"].tolist() == ["edge-on", "merger"]
    np.testing.assert_array_equal(galaxies["redshift"], [0.05, NAN])


def test_ids_beside_missing_ones_that_went_through_floats(tmp_path):
    table = pd.DataFrame({"image": ["a.png", "x/b.v2.png"], "morphology": ["spiral"] * 2, "object_id": [7.0, NAN]})
    galaxies = labels_of(tmp_path, table.to_csv())
    assert galaxies["object_id"].tolist() == ["7", "b.v2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            HEAD + "".join(f"{k}.png,spiral,{(587722981741363101 + 65537 * k) // 1000 * 1000},\n" for k in range(8)),
            "column object_id of .* holds rounded ids, such as 587722981741363000 in row 2",
        ),
        (
            HEAD + "a.png,spiral,5.877229817413633e+17,\n",
            "row 2 holds '5.877229817413633e\\+17', an id that was rounded",
        ),
        (HEAD + "a.png,spiral,1,\nb.png,merger,1.0,\n", "object id '1' in row 3 of .* occurs before, in row 2"),
        (HEAD + "a.png,spiral,1,\n" + HEAD, "row 3: unknown morphology 'morphology'"),
        (HEAD + "a.png,spiral,1,\nNGC 4038, NGC 4039,merger,2,\n", "row 3 of .* has 5 cells and its header 4"),
        ("image,morphology,redshift\n,,km/s\na.png,spiral,0.1\n", "column image of .*, row 2 is empty"),
        ("image,morphology\na\u202egnp.png,spiral\n", "row 2 holds .* whose name cannot be an id"),
        ("| image | morphology |\n|---|---|\n| a.png | spiral |\n", "row 2: unknown morphology '---'"),
        (HEAD + "a.png,spiral,1,0.1\nb.png,merger,2,7500 km/s\n", "row 3 holds '7500 km/s': it is no number"),
    ],
)
def test_one_sentence_with_the_row(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        labels_of(tmp_path, content)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


TABLE = "image,morphology,bar,T_type\na.png,Sb,0.1,3\nb.png,S0,,-2\nc.png,Sb,0,4\nd.png,E,,-5\n"
RULES = """
[[class]]
name = "barred"
label = "With a bar"
where = "morphology == 'Sb' and bar > 0"
[[class]]
name = "early"
where = "t_type < -3"
[[class]]
name = "plain"
where = "morphology == 'Sb'"
"""


def labels_by(tmp_path: Path, classes: str, table: str = TABLE, **options: bool) -> Labels:
    (tmp_path / "labels.csv").write_text(table)
    return read_labels(tmp_path / "labels.csv", (), classes, **options)


def test_names_of_the_labels_as_classes(tmp_path, capsys):
    labels = labels_by(tmp_path, "labels")
    assert [c.name for c in labels.classes] == ["E", "S0", "Sb"] and labels.unused == 0
    assert labels.galaxies["morphology"].tolist() == ["Sb", "S0", "Sb", "E"]
    assert "kept as attributes, as they stand in" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"row 2: unknown morphology 'Sb': .*; --classes labels makes every name"):
        read_labels(tmp_path / "labels.csv")


def test_classes_by_rules_of_the_labels(tmp_path, capsys):
    (tmp_path / "c.toml").write_text(RULES)
    labels = labels_by(tmp_path, str(tmp_path / "c.toml"))
    assert [(c.name, c.label) for c in labels.classes] == [("barred", "With a bar"), ("early", ""), ("plain", "")]
    assert labels.galaxies["morphology"].tolist() == ["barred", "plain", "early"]
    assert labels.galaxies["object_id"].tolist() == ["a", "c", "d"] and labels.unused == 1
    np.testing.assert_array_equal(labels.galaxies["bar"], [0.1, 0, NAN])
    said = capsys.readouterr().out
    assert f"1 of the 4 galaxies of {tmp_path / 'labels.csv'} are of no class of {tmp_path / 'c.toml'}" in said
    assert "ignored" not in said


def test_rules_need_no_column_of_classes(tmp_path):
    (tmp_path / "c.toml").write_text('[[class]]\nname = "a"\nshare = "va"\n[[class]]\nname = "b"\nshare = "vb"\n')
    labels = labels_by(tmp_path, str(tmp_path / "c.toml"), "image,va,vb\n1.png,3,1\n2.png,0.2,0.6\n3.png,,\n")
    assert labels.galaxies["morphology"].tolist() == ["a", "b"] and labels.unused == 1
    shares = labels.galaxies[["class_share_a", "class_share_b"]]
    np.testing.assert_allclose(shares, [[0.75, 0.25], [0.25, 0.75]], rtol=1e-12)


def test_rules_that_take_nothing(tmp_path):
    (tmp_path / "c.toml").write_text(RULES.replace("-3", "-9"))
    with pytest.raises(UserError, match=r"class early \(.*c\.toml, line 8, column 9\) takes none of the 4 galaxies"):
        labels_by(tmp_path, str(tmp_path / "c.toml"))
    assert len(labels_by(tmp_path, str(tmp_path / "c.toml"), allow_empty_class=True).galaxies) == 2
    (tmp_path / "c.toml").write_text('[[class]]\nname = "a"\nwhere = "bar > 9"\n')
    with pytest.raises(UserError, match=r"no galaxy of .* is of a class by .*: choose other rules"):
        labels_by(tmp_path, str(tmp_path / "c.toml"), allow_empty_class=True)
