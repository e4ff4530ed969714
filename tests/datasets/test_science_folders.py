"""Files of galaxies by their names: bands, kinds of maps, and what is left to tell galaxies apart."""

from __future__ import annotations

import pytest

from galaxies.common.errors import UserError
from galaxies.datasets.science_folders import Folder, science_files, without_ending


def folder_of(path, names, bands=(), maps=()):
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return Folder(path, bands, maps)


def found(folder):
    """Return the names of galaxies with their bands, files below the folder and maps."""
    return {
        galaxy.name: (
            {band: file.relative_to(folder.path).as_posix() for band, file in galaxy.sky.items()},
            sorted((kind, band, file.name) for kind, band, file in galaxy.maps),
        )
        for galaxy in folder.galaxies
    }


@pytest.mark.parametrize(
    ("names", "bands", "galaxy"),
    [
        (["f115w/ceers_f115w_12608.fits", "f150w/ceers_f150w_12608.fits"], ["F115W", "F150W"], "ceers_12608"),
        (["12608_g.fits", "12608_r.fits.fz"], ["g", "r"], "12608"),
        (["12608-g-drz.fits.gz", "12608-r-drz.fits.gz"], ["g", "r"], "12608"),
        (["g/12608.fits", "r/12608.fits"], ["g", "r"], "12608"),
        (["12608/g.fits", "12608/r.fit"], ["g", "r"], "12608"),
        (["HSC-G/12608.fits", "HSC-R/12608.fits"], ["g", "r"], "HSC/12608"),
        (["J1234.5+0012.3.Y.fits", "J1234.5+0012.3.y.fits"], ["Y", "y"], "J1234.5+0012.3"),
        (["cutout_59.1067_-30.4848_g.fits", "cutout_59.1067_-30.4848_r.fits"], ["g", "r"], "59.1067_-30.4848"),
    ],
)
def test_one_file_a_band(tmp_path, names, bands, galaxy):
    files = found(folder_of(tmp_path, names, bands))
    assert list(files) == [galaxy]
    assert files[galaxy][0] == dict(zip(bands, names, strict=True))


def test_maps_beside_images_and_in_folders_of_their_own(tmp_path):
    names = ["a_g.fits", "a_g_ivar.fits", "a_r.fits", "a_r.weight.fits", "a_mask.fits", "a_segm.fits", "b_psf_g.fits"]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).touch()
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a_r.fits").touch()
    folder = Folder(tmp_path / "images", ["g", "r"], [("mask", tmp_path / "masks")])
    maps = [("ivar", "g", "a_g_ivar.fits"), ("mask", "", "a_mask.fits"), ("mask", "r", "a_r.fits")]
    assert found(folder) == {"a": ({"g": "a_g.fits", "r": "a_r.fits"}, [*maps, ("weight", "r", "a_r.weight.fits")])}
    assert [file.name for file in folder.strays] == ["b_psf_g.fits"]


def test_what_is_no_galaxy(tmp_path):
    folder = folder_of(tmp_path, ["a.fits", "._a.fits", ".hidden/b.fits", "notes.txt", "c.fits.txt", "d.FIT"])
    assert [galaxy.name for galaxy in folder.galaxies] == ["a", "d"]
    assert [galaxy.name for galaxy in Folder(tmp_path, (), (), [tmp_path / "d.FIT"]).galaxies] == ["a"]
    with pytest.raises(UserError, match="holds no FITS file of an image"):
        folder_of(tmp_path / "empty", ["a_mask.fits"])
    with pytest.raises(UserError, match="does not exist"):
        Folder(tmp_path / "nowhere", ())


def test_ids_find_their_files(tmp_path):
    folder = folder_of(tmp_path, ["sub/ceers_f1_12608.fits", "sub/ceers_f1_1260.fits", "sub/ceers_f1_77_b.fits"])
    names = [galaxy.name for galaxy in folder.galaxies]
    assert names[folder.find("12608")] == "sub/ceers_f1_12608"
    assert names[folder.find("CEERS_F1_1260")] == "sub/ceers_f1_1260"
    assert names[folder.find("77 b")] == "sub/ceers_f1_77_b"
    assert folder.find("126") is None and folder.find("") is None and folder.find("8") is None
    with pytest.raises(UserError, match="'ceers' may be 'sub/ceers_f1_1260', 'sub/ceers_f1_12608'"):
        folder.find("ceers")
    for name in ("sub/ceers_f1_1260.fits", "ceers_f1_1260", "./else/CEERS_f1_1260.fits", "sub\\ceers_f1_1260.fits"):
        assert names[folder.find_file(name)] == "sub/ceers_f1_1260"
    assert folder.find_file("ceers_f1_126.fits") is None
    assert folder.ids() == ["ceers_f1_1260", "ceers_f1_12608", "ceers_f1_77_b"]


def test_ids_of_files_with_one_name(tmp_path):
    folder = folder_of(tmp_path, ["n1/image.fits", "n2/image.fits"])
    assert folder.ids() == ["n1", "n2"]
    alone = folder_of(tmp_path / "x", ["a/1.fits", "b/1.fits"])
    assert alone.ids() == ["a_1", "b_1"]


def test_names_that_leave_a_question(tmp_path):
    with pytest.raises(UserError, match="names several bands, g and r"):
        folder_of(tmp_path / "1", ["a_g_r.fits"], ["g", "r"])
    with pytest.raises(UserError, match="are both of band g of one galaxy"):
        folder_of(tmp_path / "2", ["g/a.fits", "a_g.fits"], ["g", "r"])
    with pytest.raises(UserError, match="are both of all bands"):
        folder_of(tmp_path / "3", ["a.fits", "a.fits.gz"], ["g"])


def test_endings():
    names = ["a.fits", "a.FITS.GZ", "a.fit", "a.fts.bz2", "a.fz", "a.fits.fz", "a.fits.xz"]
    assert {without_ending(name) for name in names} == {"a"}
    assert without_ending("a.b.fits") == "a.b"


def test_one_file(tmp_path):
    file = tmp_path / "all.fits"
    file.touch()
    assert science_files(file) == [file]
    assert Folder(file, ["F814W"]).galaxies[0].sky == {"": file}


def test_a_galaxy_that_is_called_as_a_band(tmp_path):
    """Where most files have no band in their names, none has."""
    folder = folder_of(tmp_path, [f"example_{letter}.fits" for letter in "abcdefg"], ["g", "r", "z"])
    assert folder.ids() == [f"example_{letter}" for letter in "abcdefg"]
    assert all(list(galaxy.sky) == [""] for galaxy in folder.galaxies)
