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
    convert = Meeting(Image.Image.convert)
    monkeypatch.setattr(Image.Image, "convert", lambda *args, **kwargs: convert(*args, **kwargs))
    with ThreadPoolExecutor(3) as pool:
        pictures = list(pool.map(read_picture, [tmp_path / "a.png"] * 3))
    assert convert.most == at_once and {picture.side_px for picture in pictures} == {side}


def test_fits_files_take_turns_and_leave_the_warnings_as_they_were(tmp_path, monkeypatch):
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(np.ones((64, 64))).writeto(tmp_path / "a.fits")
    opening = Meeting(fits.open)
    monkeypatch.setattr(fits, "open", opening)
    before = list(warnings.filters)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read_picture, [tmp_path / "a.fits"] * 3))
    assert opening.most == 1 and list(warnings.filters) == before


@pytest.mark.parametrize("transparency", [None, 3, bytes([0, 128, 255])])
def test_a_palette_with_transparency_is_read_in_its_colours_without_a_warning(tmp_path, transparency):
    picture = Image.new("P", (64, 64))
    picture.putpalette([10, 20, 30, 40, 50, 60, 250, 240, 230, 0, 0, 0])
    picture.putdata([k % 3 for k in range(64 * 64)])
    options = {} if transparency is None else {"transparency": transparency}
    picture.save(tmp_path / "a.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_picture(tmp_path / "a.png").image
    colours = np.array([[10, 20, 30], [40, 50, 60], [250, 240, 230]], np.float32)
    expected = colours[np.arange(64 * 64) % 3].reshape(64, 64, 3).transpose(2, 0, 1) / 255
    assert np.array_equal(image.numpy(), expected)
