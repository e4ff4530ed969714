"""Tables that are packed, coded, damaged or made to do harm, as far as their bytes go."""

import bz2
import gzip
import importlib
import io
import lzma
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from galaxies.common.errors import UserError
from galaxies.common.untrusted_files import UntrustedFileError
from galaxies.tables import opening
from galaxies.tables.opening import TableStream, hold_the_same, survey_table


def read_all(file: Path) -> bytes:
    with io.BufferedReader(TableStream(file)) as stream:
        return stream.read()


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_is_read_as_it_is(tmp_path, packed):
    text = b'\xef\xbb\xbf Objid,"ASSET_ID"\r\n' + b"1,2\r\n" * 50_000 + b"3,4"
    (tmp_path / "a.csv").write_bytes(gzip.compress(text) if packed else text)
    assert read_all(tmp_path / "a.csv") == text
    survey = survey_table(tmp_path / "a.csv")
    assert survey.columns == ("objid", "asset_id")
    assert survey.rows == 50_001
    (tmp_path / "a.csv").write_bytes(text + b"\n")
    assert survey_table(tmp_path / "a.csv").rows == 50_001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n" + b"1,2\n" * 300_000, "it goes on after .* MB"),
        (b"a,b\n" + b"1\n" * 3000, "it goes on after 0 MB and 3001 lines"),
        (b"a," + b"x" * 400_000, "line 1 has more than 262144 bytes"),
        (b"a,b\n1," + b"x" * 400_000 + b"\n2,3\n", "line 2 has more than"),
        (b"a,b\n1,2\0\n", "it holds NUL bytes"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_absurd_size(tmp_path, monkeypatch, text, message, packed):
    monkeypatch.setattr(opening, "MAX_TABLE_BYTES", 1_000_000)
    monkeypatch.setattr(opening, "MAX_ROWS", 2000)
    (tmp_path / "a.csv").write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(UntrustedFileError, match=message):
        survey_table(tmp_path / "a.csv")


def test_a_gzip_bomb_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MAX_TABLE_BYTES", 20_000_000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((b"1" * 999 + b"\n") * 100_000, 1))
    tracemalloc.start()
    try:
        with pytest.raises(UntrustedFileError, match="it goes on after 20 MB"):
            survey_table(tmp_path / "a.csv.gz")
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def zipped(**entries: str) -> bytes:
    """Zip texts, by their names with _ for / and DOT for a dot."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name.replace("_", "/").replace("DOT", "."), text)
    return content.getvalue()


TEXT = b"image,morphology\n" + b"1.jpg,spiral\n" * 30_000


@pytest.mark.parametrize(
    "packed",
    [
        bz2.compress(TEXT),
        bz2.compress(TEXT[:1000]) + bz2.compress(TEXT[1000:]),  # as pbzip2 writes it
        lzma.compress(TEXT),
        lzma.compress(TEXT[:1000]) + lzma.compress(TEXT[1000:]) + b"\0" * 4,
        gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]),
        zipped(data_tableDOTcsv=TEXT.decode(), data_readmeDOTmd="a table", DOTtrash_tableDOTcsv="junk"),
        b"\xff\xfe" + TEXT.decode().encode("utf-16-le"),
        b"\xfe\xff" + TEXT.decode().encode("utf-16-be"),
    ],
    ids=["bz2", "bz2 twice", "xz", "xz twice", "gz twice", "zip", "UTF-16 LE", "UTF-16 BE"],
)
def test_packings_and_encodings_are_seen_by_their_bytes(tmp_path, packed):
    (tmp_path / "a.csv").write_bytes(packed)
    assert read_all(tmp_path / "a.csv").removeprefix(b"\xef\xbb\xbf") == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bz2.compress(TEXT)[:-20], "it ends in the middle"),
        (lzma.compress(TEXT)[:-20], "it ends in the middle"),
        (gzip.compress(TEXT)[:-20], "ended before"),
        (lzma.compress(TEXT)[:20] + b"x" * 50, "[Cc]orrupt"),
        (zipped(aDOTcsv="1", bDOTcsv="2"), "a zip file with 2 tables, such as 'a.csv'"),
        (zipped(aDOTpng="1"), "a zip file with no table"),
        (zipped(xl_workbookDOTxml="1", xl_aDOTcsv="1"), "a file of a spreadsheet program"),
        (zipped(contentDOTxml="1"), "a file of a spreadsheet program"),
        (zipped(imagesDOTnpy="1"), "arrays of NumPy"),
        ("a,b\n1,2\n".encode("utf-32"), "UTF-32"),
        (b"\xff\xfe" + "a\ud800,b\n".encode("utf-16-le", "surrogatepass"), "surrogate"),
    ],
)
def test_what_cannot_be_unpacked(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(opening.UNPACK_ERRORS, match=message):
        read_all(tmp_path / "a.csv")


def test_a_bomb_of_xz_or_bzip2_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MAX_TABLE_BYTES", 10_000_000)
    text = (b"1" * 999 + b"\n") * 12_000
    for packed in (bz2.compress(text, 1), lzma.compress(text, preset=0)):
        (tmp_path / "a.csv").write_bytes(packed)
        tracemalloc.start()
        try:
            with pytest.raises(UntrustedFileError, match="it goes on after 10 MB"):
                survey_table(tmp_path / "a.csv")
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()


def test_xz_that_asks_for_too_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_DICTIONARY_BYTES", 1 << 20)
    (tmp_path / "a.csv").write_bytes(lzma.compress(TEXT, preset=6))  # a dictionary of 8 MiB
    with pytest.raises(lzma.LZMAError, match=r"[Mm]emory"):
        read_all(tmp_path / "a.csv")


def test_zstandard_without_its_package(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    (tmp_path / "a.csv").write_bytes(b"\x28\xb5\x2f\xfd\x04\x00")
    with pytest.raises(UntrustedFileError, match=r"pip install backports\.zstd, or unpack it"):
        read_all(tmp_path / "a.csv")


def test_zstandard(tmp_path):
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        zstd = pytest.importorskip("backports.zstd")
    packed = zstd.compress(TEXT[:1000]) + zstd.compress(TEXT[1000:])
    (tmp_path / "a.csv").write_bytes(packed)
    assert read_all(tmp_path / "a.csv") == TEXT
    for damaged in (packed[:-5], packed[:40] + b"x" * 20):
        (tmp_path / "a.csv").write_bytes(damaged)
        with pytest.raises(opening.UNPACK_ERRORS):
            read_all(tmp_path / "a.csv")


def test_a_decompressor_of_zstandards_kind(tmp_path, monkeypatch):
    # The module that Python has from 3.14 on, played by bzip2, which has the same interface.
    class Module:
        DecompressionParameter = type("Parameter", (), {"window_log_max": 101})
        ZstdError = OSError

        @staticmethod
        def ZstdDecompressor(options):  # noqa: N802 - the module's name
            assert options == {101: 28}  # 256 MiB
            return bz2.BZ2Decompressor()

    monkeypatch.setattr(importlib, "import_module", lambda name: Module)
    packed = bz2.compress(TEXT)
    with opening._zstandard(io.BytesIO(packed)) as reader:
        assert io.BufferedReader(reader).read() == TEXT
    with pytest.raises(UntrustedFileError, match="what packs it is damaged"):
        io.BufferedReader(opening._zstandard(io.BytesIO(packed[:40] + b"xxxx" + packed[44:]))).read()


def test_two_files_that_hold_the_same(tmp_path):
    (tmp_path / "a.csv").write_bytes(TEXT)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(TEXT))
    (tmp_path / "longer.csv.gz").write_bytes(gzip.compress(TEXT + b"\n"))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(TEXT)[:-20])
    (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(TEXT))
    assert hold_the_same(tmp_path / "a.csv", tmp_path / "a.csv.gz", tmp_path / "a.csv.bz2")
    assert not hold_the_same(tmp_path / "a.csv", tmp_path / "longer.csv.gz")
    assert not hold_the_same(tmp_path / "longer.csv.gz", tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"a\.csv or .*cut\.csv\.gz cannot be read"):
        hold_the_same(tmp_path / "a.csv", tmp_path / "cut.csv.gz")
