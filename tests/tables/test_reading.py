"""Tables in all the forms in which people bring them, and the sentences for what is none."""

import csv
import gzip
import io
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galaxies.common.errors import UserError
from galaxies.tables import opening, reading
from galaxies.tables.reading import read_table

WANTED = ("image", "morphology", "redshift")
NEEDED = ("image", "morphology")
PLAIN = "image,morphology,redshift\n1.jpg,spiral,0.1\n2.jpg,merger,\n"
CELLS = [["1.jpg", "spiral", "0.1"], ["2.jpg", "merger", ""]]


def read(tmp_path: Path, content: str | bytes, wanted=WANTED, needed=NEEDED, **how):
    file = tmp_path / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(file, wanted, needed, **how)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PLAIN, ""),
        (PLAIN.encode("utf-8-sig"), ""),
        (PLAIN.encode("utf-16"), ""),
        (gzip.compress(PLAIN.encode("utf-8-sig")), ""),
        (PLAIN.replace("\n", "\r\n"), ""),
        (PLAIN.replace("\n", "\r"), ""),
        (PLAIN.rstrip("\n"), ""),
        (PLAIN.replace(",", ";"), "separated by semicolons"),
        (PLAIN.replace(",", "\t"), ""),
        (PLAIN.replace(",", "|"), "separated by vertical bars"),
        (PLAIN.replace(",", ", "), ""),
        ("sep=;\n" + PLAIN.replace(",", ";"), "separated by semicolons"),
        (PLAIN.upper().splitlines()[0] + PLAIN[len(PLAIN.splitlines()[0]) :], ""),
        ('"image","morphology","redshift"\n"1.jpg","spiral","0.1"\n"2.jpg","merger",""\n', ""),
        ("redshift,image,morphology\n0.1,1.jpg,spiral\n,2.jpg,merger\n", ""),
        ("\n# made by hand, in May\n#\n" + PLAIN, ""),
        ("# " + PLAIN, ""),  # the header as numpy.savetxt writes it
        (PLAIN + "# the end\n\n", "since they begin with #: 1"),
        (PLAIN + ",,\n, ,\n", "all their cells are empty: 2"),
        (PLAIN.replace("\n", ",\n"), ""),  # a comma at the end of every line
        (
            PLAIN.replace("0.1\n", "0.1,\n").replace("merger,\n", "merger,,\n"),
            "",
        ),  # but not the header
        ("image,morphology,redshift\n1.jpg,spiral,0.1\n2.jpg,merger\n", "fewer cells than the header"),
        ("image morphology redshift\n 1.jpg  spiral  0.1\n2.jpg merger ''\n", "separated by spaces"),
    ],
)
def test_forms_of_one_table(tmp_path, capsys, content, said):
    table = read(tmp_path, content)
    cells = table.cells[list(WANTED)].map(lambda text: text.strip().strip("'"))
    assert cells.to_numpy().tolist() == CELLS
    printed = capsys.readouterr().out
    assert printed.count("\n") == bool(said)
    assert said in printed


def test_what_is_no_utf8_is_latin1_and_said(tmp_path, capsys):
    table = read(tmp_path, "image,morphology\nGrün – 1.jpg,spiral\n".encode("cp1252"))
    assert table.cells["image"].tolist() == ["Grün – 1.jpg"]
    assert "is not UTF-8 and was read as Windows-1252 (Latin-1)" in capsys.readouterr().out
    # Far below the first block too.
    table = read(tmp_path, b"image,morphology\n" + b"1.jpg,spiral\n" * 20_000 + b"\xfc.jpg,spiral\n")
    assert (len(table), table.cells["image"].iloc[-1]) == (20_001, "ü.jpg")
    with pytest.raises(UserError, match=r"neither in UTF-8 nor in Windows-1252, byte 17\): save the table"):
        read(tmp_path, b"image,morphology\n\x81.jpg,spiral\n")


def test_cells_keep_what_belongs_to_them(tmp_path):
    text = 'image,morphology\n"NGC 4038, ""the Antennae"".jpg",merger\n"two\nlines",spiral\n\n#7,spiral\n'
    table = read(tmp_path, text)
    assert table.cells["image"].tolist() == ['NGC 4038, "the Antennae".jpg', "two\nlines", "#7"]
    assert list(table.rows) == [2, 3, 5]  # as a spreadsheet counts them: the empty row is one too
    assert table.place("image", 2).endswith("table.csv, row 5")


def test_other_columns_are_named_and_those_without_a_name_are_not(tmp_path):
    table = read(tmp_path, ",image,note,note,morphology\n0,1.jpg,a,b,spiral\n")
    assert table.others == ("note", "note")
    assert list(table.cells) == ["image", "morphology"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: save the table"),
        (" \r\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        ("image,morphology\n", "has a header and no row"),
        ("image,class\n1,spiral\n", "has no column morphology: it has image, class"),
        ("1.jpg,spiral\n2.jpg,merger\n", "has no column image: it has 1.jpg, spiral"),
        ("image,\x1b[2J\n1,2\n", r"it has image, '\\x1b\[2j'"),
        ("image,Image,morphology\n1,2,3\n", "has two columns image"),
        (
            "image,morphology\n1,spiral\nNGC 4038, NGC 4039,merger\n",
            r"row 3 of .* has 3 cells and its header 2: .* needs quotes",
        ),
        ("image,morphology\n1,spiral\nNGC 4038, NGC 4039,\n2,merger\n", "row 3 of .* has 3 cells and its header 2"),
        ("image,morphology\n1,spiral,\n2,merger\n", "row 2 of .* has 3 cells and its header 2"),
        ('image,morphology\n1,spiral\n"2,merger\n', "row 3 is no row of a table: a quote .* is not closed"),
        (PLAIN + "3.jpg,spiral\0,\n", "holds NUL bytes"),
        (PLAIN.encode("utf-16-le"), "holds NUL bytes"),
        ("<!DOCTYPE html><table></table>", "is a web page"),
        ("\n<?xml version='1.0'?><VOTABLE/>", "is a web page or XML"),
        ('{"image": "1.jpg"}', "is JSON"),
        (b"PAR1\x15\x04", "is a (damaged )?Parquet file"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x89PNG\r\n\x1a\n", "is a picture"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a file of a spreadsheet program"),
        (gzip.compress(PLAIN.encode())[:-9], "cannot be read .*ended before"),
    ],
)
def test_what_is_no_table(tmp_path, content, message):
    with pytest.raises(UserError, match=f"(table.csv {message})|({message})") as caught:
        read(tmp_path, content)
    assert "table.csv" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_path_that_is_no_file(tmp_path):
    for path, message in ((tmp_path / "no.csv", r"no\.csv does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=message):
            read_table(path, WANTED)
    if Path("/dev/zero").exists():
        with pytest.raises(UserError, match="is a device"):
            read_table(Path("/dev/zero"), WANTED)


def test_a_table_that_must_be_even(tmp_path):
    with pytest.raises(UserError, match=r"row 3 of .* has 2 cells and its header 3: the file was cut short"):
        read(tmp_path, "image,morphology,redshift\n1,spiral,0.1\n2,mer", even=True)


def test_comments_are_rows_where_none_are_expected(tmp_path):
    text = "image,morphology,redshift\n#1,spiral\n"
    with pytest.raises(UserError, match="no row"):
        read(tmp_path, text)
    assert read(tmp_path, text, comments=False).cells["image"].tolist() == ["#1"]


def test_a_fits_table(tmp_path, capsys):
    fits = pytest.importorskip("astropy.io.fits")
    columns = [
        fits.Column("IMAGE", "8A", array=["1.jpg", "2.jpg", "3"]),
        fits.Column("Morphology", "10A", array=["spiral", "edge_on", "merger"]),
        fits.Column("object_id", "K", array=[587722981741363101, -1, 3], null=-1),
        fits.Column("redshift", "E", array=[0.1, np.nan, 0.25]),
        fits.Column("vector", "3D", array=np.zeros((3, 3))),
        fits.Column("good", "L", array=[True, False, True]),
    ]
    content = io.BytesIO()
    units = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("other", "J", array=[1])])]
    fits.HDUList([*units, fits.BinTableHDU.from_columns(columns)]).writeto(content)
    for packed in (content.getvalue(), gzip.compress(content.getvalue())):
        table = read(tmp_path, packed, (*WANTED, "object_id"))
        assert table.cells["object_id"].tolist() == ["587722981741363101", "", "3"]
        assert table.cells["redshift"].tolist() == ["0.1", "", "0.25"]  # single precision, with its own digits
        assert table.cells["image"].tolist() == ["1.jpg", "2.jpg", "3"]
        assert (table.others, table.place("image", 1)[-5:]) == (("good",), "row 2")
    with pytest.raises(UserError, match="has no column class: it has image, morphology"):
        read(tmp_path, content.getvalue(), ("class",), ("class",))
    for damaged in (content.getvalue()[:2000], content.getvalue()[: 2880 * 4 + 10]):
        with pytest.raises(UserError, match=r"table\.csv (cannot be read|has no column)"):
            read(tmp_path, damaged)
    picture = io.BytesIO()
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(picture)
    with pytest.raises(UserError, match="is FITS and holds no table"):
        read(tmp_path, picture.getvalue())


def test_damaged_fits_tables_cost_a_sentence(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    content = io.BytesIO()
    fits.BinTableHDU.from_columns([fits.Column(name, "9A", array=["a", "b"]) for name in NEEDED]).writeto(content)
    whole, drawn, refused = content.getvalue(), random.Random(5), 0
    cards = [
        whole.find(word) for word in (b"NAXIS2", b"TFORM1", b"TTYPE2", b"XTENSION", b"PCOUNT", b"END ", b"TFIELDS")
    ]
    changes = [(start + shift, byte) for start in cards for shift, byte in ((0, b"X"), (10, b"?"), (29, b"9"))]
    changes += [(drawn.randrange(2880, 5760), bytes([drawn.randrange(256)])) for _ in range(10)]
    for place, byte in changes:
        try:
            read(tmp_path, whole[:place] + byte + whole[place + 1 :])
        except UserError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 500
    assert refused > 8


# Two readers, one result

ODD = st.sampled_from(["", "a", "0.5", " b ", '"', "é", "#", "'", "a,b", "x\ny", "…", "587722981741363101"])


@settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.lists(ODD, min_size=3, max_size=3), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(0, 3),
)
def test_the_fast_reader_reads_what_the_exact_one_does(tmp_path_factory, rows, separator, ending, where):
    # Plain rows of several blocks; the others stand before, among or after them.
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=ending)
    plain = [[f"{k}.jpg", "spiral", "0.1"] for k in range(60)]
    cut = (0, 30, 60, 59)[where]
    writer.writerows([["image", "morphology", "redshift"], *plain[:cut], *rows, *plain[cut:]])
    file = tmp_path_factory.getbasetemp() / "large.csv"
    file.write_bytes(text.getvalue().encode())
    outcomes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", 200)
        patch.setattr(opening, "BLOCK", 200)
        for fast in (True, False):
            if not fast:
                patch.setattr(reading, "_read_plain", lambda *_: None)
            table = read_table(file, WANTED, NEEDED)
            cells = [[cell.strip() for cell in row] for row in table.cells.to_numpy().tolist()]
            outcomes.append((cells, list(table.rows), table.others))
    assert outcomes[0] == outcomes[1]
    kept = [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]
    assert len(outcomes[0][0]) == 60 + len(kept)


def test_large_plain_tables_take_the_fast_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_blocks_exactly", None)
    assert len(read(tmp_path, "image,morphology\n" + "1.jpg,spiral\r\n" * 20_000)) == 20_000


@pytest.mark.parametrize(
    ("row", "message"),
    [("9.jpg,spiral,x,y\n", "row 20002 .* has 4 cells"), ('"9.jpg,spiral\n', "row 20002 is no row"), ("9.jpg", "")],
)
def test_faults_deep_in_a_large_table_are_found(tmp_path, capsys, row, message):
    content = "image,morphology\n" + "1.jpg,spiral\n" * 20_000 + row
    if message:
        with pytest.raises(UserError, match=message):
            read(tmp_path, content)
    else:
        assert read(tmp_path, content).cells.iloc[-1].tolist() == ["9.jpg", ""]
        assert re.search("fewer cells than the header.*: 1\n", capsys.readouterr().out)
