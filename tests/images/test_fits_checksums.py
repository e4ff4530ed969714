"""Checksums of FITS units against those of astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from galaxies.images.fits_checksums import DataSum, sealed


@pytest.mark.parametrize("seed", range(12))
def test_sums_in_pieces_are_those_of_astropy(seed, tmp_path):
    rng = np.random.default_rng(seed)
    unit = fits.PrimaryHDU(rng.integers(0, 256, (int(rng.integers(1, 90)), 37), dtype=np.uint8) | (seed % 2 * 255))
    unit.header["ABOUT"] = ("x" * seed, f"seed {seed}")
    content = unit.data.tobytes()
    content += bytes(-len(content) % 2880)
    total = DataSum()
    for start in range(0, len(content), 7):
        total.add(content[start : start + 7])
    header = unit.header.copy()
    (tmp_path / "a.fits").write_bytes(sealed(header, total) + content)
    with fits.open(tmp_path / "a.fits", checksum=True) as units:
        assert units[0].verify_checksum() == 1 == units[0].verify_datasum()
    unit.add_datasum()
    assert header["DATASUM"] == unit.header["DATASUM"]
    assert sealed(header, total) == sealed(header.copy(), DataSum(content))  # sealed once more it is the same


def test_no_data():
    header = fits.PrimaryHDU().header
    sealed(header, DataSum())
    assert header["DATASUM"] == "0" and header["CHECKSUM"].isalnum() and len(header["CHECKSUM"]) == 16
