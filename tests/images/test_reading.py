"""Reading pictures in several threads: what adds up in memory, or is told to all threads, takes turns."""

from __future__ import annotations

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from galaxies.images import reading
from galaxies.images.reading import read_picture


class Meeting:
    """Counts how many threads are in a call at the same time."""

    def __init__(self, call) -> None:
        self.call, self.inside, self.most, self.lock = call, 0, 0, threading.Lock()

    def __call__(self, *args, **kwargs):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.05)
        try:
            return self.call(*args, **kwargs)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.mark.parametrize("side, at_once", [(80, 3), (96, 1)])
def test_only_large_pictures_take_turns(tmp_path, monkeypatch, side, at_once):
    monkeypatch.setattr(reading, "_LARGE_PX", 90 * 90)
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(tmp_path / "a.png")
    decode = Meeting(reading.as_displayed)
    monkeypatch.setattr(reading, "as_displayed", decode)
    with ThreadPoolExecutor(3) as pool:
        pictures = list(pool.map(read_picture, [tmp_path / "a.png"] * 3))
    assert decode.most == at_once and {picture.side_px for picture in pictures} == {side}


def test_fits_files_take_turns_and_leave_the_warnings_as_they_were(tmp_path, monkeypatch):
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(np.ones((64, 64))).writeto(tmp_path / "a.fits")
    opening = Meeting(fits.open)
    monkeypatch.setattr(fits, "open", opening)
    before = list(warnings.filters)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read_picture, [tmp_path / "a.fits"] * 3))
    assert opening.most == 1 and list(warnings.filters) == before


@pytest.mark.parametrize(
    "transparency, levels", [(None, (1, 1, 1)), (1, (1, 0, 1)), (bytes([0, 51, 255]), (0, 0.2, 1))]
)
def test_a_palette_with_transparency_is_read_as_shown_on_black_without_a_warning(tmp_path, transparency, levels):
    picture = Image.new("P", (64, 64))
    picture.putpalette([10, 20, 30, 40, 50, 60, 250, 240, 230, 0, 0, 0])
    picture.putdata([k % 3 for k in range(64 * 64)])
    options = {} if transparency is None else {"transparency": transparency}
    picture.save(tmp_path / "a.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_picture(tmp_path / "a.png").image
    colours = np.array([[10, 20, 30], [40, 50, 60], [250, 240, 230]], np.float32) * np.array(levels)[:, None]
    expected = colours[np.arange(64 * 64) % 3].reshape(64, 64, 3).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(image.numpy(), expected, atol=0.4 / 255)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_grey_picture_says_so(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.colorless and picture.note == "grey"
