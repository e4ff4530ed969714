"""Cutouts of science images, each brought into nanojansky on one frame of pixels for all bands."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from galaxies.common.errors import UserError
from galaxies.datasets.science_folders import GalaxyFiles
from galaxies.images.area_resampling import framed, resample
from galaxies.images.fits_images import Image
from galaxies.images.fits_science import (
    MAP_KINDS,
    Maps,
    ScienceFile,
    Sky,
    UnusableImageError,
    band_key,
    band_said,
    images_by_kind,
    named_planes,
    planes_of_bands,
    psf_fwhm_said,
    read_sky,
    science_file,
)
from galaxies.images.flux_units import calibration, pixel_scale_of, sky_frame_of
from galaxies.images.psf_images import fwhm_px, prepared_psf

_SAME = 1e-3  # relative difference up to which two pixel scales are one
_BORDER = 0.1  # part of the side that is taken for the border, where the sky is
_LEFT_SIGMA = 5.0  # standard deviations of a pixel above 0 from which on a sky was left in
_BELOW_SIGMA = -1.0  # and below, where no galaxy's light can be
_CLIP = 3.0
LEGACY_PX = 0.262  # arcseconds a pixel of the images of the Legacy Surveys


class OpenQuestionError(UserError):
    """What neither a header nor an option says, of all galaxies most likely: nothing goes on without an answer."""


class Wanted(NamedTuple):
    """What the options say; of sequences, one for each band, None where an option is not given.

    Attributes
    ----------
    bands : tuple of str
    size : int
        Pixels a side of the frames, S.
    zero_points, pixel_scales, psf_fwhms : sequence of float or None
        AB magnitude of a value of 1; arcseconds a pixel; arcseconds.
    units : sequence of str or None
    psf : Path, optional
        File of point spread functions, of each band or of each galaxy.
    psf_scale : float, optional
        Arcseconds a pixel in it.
    flux_pixel : float, optional
        Arcseconds: side of the pixels that values are the flux of, where files were interpolated to others since.
    crop : bool
        Keep the pixels and cut the middle out, instead of putting pixels together.
    scale : float, optional
        Arcseconds a pixel to bring every cutout to.
    subtract : sequence of bool
        Whether the sky's level is to be taken off.
    maps : Maps
    """

    bands: tuple[str, ...]
    size: int
    zero_points: Sequence[float | None]
    pixel_scales: Sequence[float | None]
    psf_fwhms: Sequence[float | None]
    units: Sequence[str | None]
    psf: Path | None = None
    psf_scale: float | None = None
    flux_pixel: float | None = None
    crop: bool = False
    scale: float | None = None
    subtract: Sequence[bool] = ()
    maps: Maps = Maps()


class Galaxy(NamedTuple):
    """A galaxy and where its images are.

    Attributes
    ----------
    object_id, morphology : str
    files : GalaxyFiles
    hdu : str
        Number from 0 or name of its extension; "" if the file is its own.
    psf_image : Path, optional
        File of its point spread function.
    psf_hdu : str
    numbers : dict of str to float
        What the catalogue says of it, NaN where unknown.
    """

    object_id: str
    morphology: str
    files: GalaxyFiles
    hdu: str = ""
    psf_image: Path | None = None
    psf_hdu: str = ""
    numbers: Mapping[str, float] = {}


class FluxCutout(NamedTuple):
    """A galaxy in nanojansky.

    Attributes
    ----------
    image : ndarray, (B, S, S), float32
        NaN where there is no value.
    pixel_scale : float
        Arcseconds a pixel.
    noise, psf_fwhm : ndarray, (B,)
        nJy a pixel; arcseconds; NaN where unknown.
    psfs : list of (ndarray, float), optional
        Image of the point spread function of each band, and the side of a pixel of the frame in its own.
    missing : float
        Largest part of a band's pixels without a value, of those that the cutout has in the frame.
    """

    image: np.ndarray
    pixel_scale: float
    noise: np.ndarray
    psf_fwhm: np.ndarray
    psfs: list[tuple[np.ndarray, float]] | None
    missing: float


class SkyLevel(NamedTuple):
    """Level and noise of the sky of a plane, and the level of its darkest corner, in the unit of its values."""

    level: float
    noise: float
    darkest: float

    @property
    def is_left(self) -> bool:
        """Whether more of it than a galaxy's wings was left in, or too much taken off."""
        return self.darkest > _LEFT_SIGMA * self.noise or self.level < _BELOW_SIGMA * self.noise


class _Band(NamedTuple):
    """One band of a galaxy in nJy: values and errors (H, W), arcseconds a pixel, header, its plane in the image."""

    values: np.ndarray
    error: np.ndarray | None
    scale: float
    header: Mapping[str, Any]
    plane: int


class CutoutReader:
    """Reads galaxies as the options say, and counts what there is to say about them; a context manager.

    Files of many galaxies stay open.

    Attributes
    ----------
    remarks : Counter of str
        What was found, and in how many galaxies.
    hits : int
        Pixels that stand out as those of cosmic rays do.
    calibrations : dict of str to Counter
        By what the flux of each band is known.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.remarks: Counter[str] = Counter()
        self.hits = 0
        self.calibrations: dict[str, Counter[str]] = {band: Counter() for band in wanted.bands}
        self._said: set[str] = set()  # of the galaxy that is being read
        self._stack = ExitStack()
        self._shared: dict[Path, ScienceFile] = {}

    def __enter__(self) -> CutoutReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, galaxy: Galaxy) -> FluxCutout:
        """Read a galaxy.

        Raises
        ------
        UnusableImageError
            If this one cannot be used.
        OpenQuestionError
            If nothing says what its values are.
        """
        self._said.clear()
        with ExitStack() as stack:
            found = self._planes(galaxy, stack)
            skies = [read_sky(file, image, plane, maps, self.wanted.maps) for file, image, plane, maps in found]
            paths = [file.path for file, *_ in found]
            own_psfs = self._psfs(galaxy, stack, found)
        if hits := sum(sky.hits for sky in skies):
            self._said.add("with single pixels that stand out as no galaxy's do, taken as bad")
            self.hits += hits
        planes = [plane for _, _, plane, _ in found]
        bands = [self._in_nanojansky(galaxy, k, paths[k], planes[k], sky) for k, sky in enumerate(skies)]
        cutout = self._framed(galaxy, bands, own_psfs)
        self.remarks.update(self._said)
        return cutout

    def sky_of(self, galaxy: Galaxy) -> list[SkyLevel]:
        """Return the sky of each band of a galaxy, in the unit of its file."""
        with ExitStack() as stack:
            found = self._planes(galaxy, stack)
            return [sky_level(read_sky(*each, self.wanted.maps).values) for each in found]

    # Which image is which band

    def _opened(self, path: Path, stack: ExitStack, shared: bool) -> ScienceFile:
        if not shared:
            return stack.enter_context(science_file(path))
        if path not in self._shared:
            self._shared[path] = self._stack.enter_context(science_file(path))
        return self._shared[path]

    def _planes(
        self, galaxy: Galaxy, stack: ExitStack
    ) -> list[tuple[ScienceFile, Image, int, list[tuple[str, ScienceFile, Image]]]]:
        """Return file, image, plane and maps of each band."""
        bands = self.wanted.bands
        sky_files = galaxy.files.sky
        if "" in sky_files:
            file = self._opened(sky_files[""], stack, bool(galaxy.hdu))
            sky, maps = self._sky_images(file, galaxy.hdu)
            planes, turned = planes_of_bands(file, sky, bands, by_order=True)
            if turned:
                self._said.add("whose headers name other bands than --bands, which decides")
            chosen = [(file, image, plane, maps, sky) for image, plane in planes]
        else:
            chosen = []
            for band in bands:
                if band not in sky_files:
                    raise UnusableImageError(f"{galaxy.files.name} has no file of band {band}", "bands missing")
                file = self._opened(sky_files[band], stack, bool(galaxy.hdu))
                sky, maps = self._sky_images(file, galaxy.hdu)
                held = {band_key(name) for name, _, _ in named_planes(file, sky)} & {band_key(each) for each in bands}
                if len(held) > 1:
                    raise UnusableImageError(
                        f"{file.path} is of band {band} by its name, and holds several: give its galaxy another name",
                        "several bands in the file of one",
                    )
                planes, turned = planes_of_bands(file, sky, (band,), by_order=True)
                if turned:
                    self._said.add("whose headers name other bands than their files' names, which decide")
                chosen.append((file, *planes[0], maps, sky))
        found = []
        for k, (file, image, plane, maps, sky) in enumerate(chosen):
            own = [(kind, file, other) for kind, other in _maps_of(image, sky, maps, file) if kind in MAP_KINDS]
            for kind, of_band, path in galaxy.files.maps:
                if kind in MAP_KINDS and of_band in ("", bands[k]):
                    beside = self._opened(path, stack, False)
                    own.append((kind, beside, _one_of(beside, bands, k)))
            found.append((file, image, plane, own))
        return found

    def _sky_images(self, file: ScienceFile, hdu: str) -> tuple[list[Image], list[tuple[str, Image]]]:
        if not hdu:
            return images_by_kind(file, file.images())
        images = file.images(int(hdu)) if hdu.isdecimal() else file.named(hdu)
        if not images:
            raise UnusableImageError(f"{file.path} has no extension {hdu}", "no such HDU")
        return images, []

    # Units

    def _in_nanojansky(self, galaxy: Galaxy, k: int, path: Path, plane: int, sky: Sky) -> _Band:
        band = self.wanted.bands[k]
        where = f"{path}, band {band}" if len(self.wanted.bands) > 1 else str(path)
        said = pixel_scale_of(sky.header)
        scale = _first(self.wanted.pixel_scales[k], _number(galaxy, "pixel_scale", band), said)
        if scale is None:
            raise OpenQuestionError(
                f"{where} does not say how large its pixels are: give arcseconds a pixel with --pixel-scale"
            )
        if said is not None and abs(said / scale - 1) > 0.01:
            self._said.add(f"whose headers say another pixel scale, such as {said:.4g}, than {scale:.4g} as given")
        flux_pixel = self.wanted.flux_pixel
        zero_point = _first(self.wanted.zero_points[k], _number(galaxy, "zero_point", band))
        try:
            known = calibration(
                sky.header, where, pixel_scale=flux_pixel or scale, zero_point=zero_point, unit=self.wanted.units[k]
            )
        except UserError as question:
            raise OpenQuestionError(str(question)) from None
        self.calibrations[band][known.how] += 1
        with suppress(UserError):  # which only says that the header leaves it open
            own = calibration(sky.header, where, pixel_scale=flux_pixel or scale)
            if abs(own.factor / known.factor - 1) > 0.01:
                self._said.add(f"whose headers say another flux, by {own.how}, than {known.how} as given")
        factor = known.factor
        if flux_pixel is not None:
            factor *= (scale / flux_pixel) ** 2
        elif _is_interpolated(sky.header, said) and k == 0:
            self._said.add(
                f"are cutouts of the Legacy Surveys at another scale than {LEGACY_PX} arcsec a pixel, whose values are "
                f"still the flux of such a pixel: --flux-pixel {LEGACY_PX} corrects their magnitudes"
            )
        values = sky.values
        if self.wanted.subtract and self.wanted.subtract[k]:
            values = values - sky_level(values).level
        error = sky.error
        if error is None:
            variance = _number(galaxy, "noise_variance", band)
            given = _first(_number(galaxy, "noise", band), None if variance is None else math.sqrt(variance))
            error = None if given is None else np.full(values.shape, given)
        return _Band(values * factor, None if error is None else error * factor, scale, sky.header, plane)

    # One frame for all bands

    def _framed(
        self, galaxy: Galaxy, bands: Sequence[_Band], psfs: list[tuple[np.ndarray, Mapping[str, Any]]] | None
    ) -> FluxCutout:
        from galaxies.datasets.flux_preparing import sky_noise

        wanted, size = self.wanted, self.wanted.size
        fields = [min(band.values.shape) * band.scale for band in bands]
        coarsest = max(band.scale for band in bands)
        if max(fields) - min(fields) > 1.5 * coarsest:
            sizes = ", ".join(f"{name} {field:.4g}" for name, field in zip(wanted.bands, fields, strict=True))
            raise UnusableImageError(
                f"its bands show areas of different sizes, {sizes} arcsec a side", "bands of different sizes"
            )
        _refuse_other_places(wanted.bands, bands, coarsest)
        if wanted.scale is not None:
            scale = wanted.scale
        elif wanted.crop:
            scale = coarsest
        else:  # put pixels together, and never part them
            scale = max(coarsest, min(fields) / size)
        if coarsest > (1 + _SAME) * min(band.scale for band in bands):
            self._said.add(f"whose bands have pixels of different sizes, brought to {scale:.4g} arcsec")
        steps = [scale / band.scale for band in bands]
        as_they_are = all(abs(step - 1) < _SAME for step in steps)
        side = min(size, max(4, int(min(fields) / scale + 1e-6)))  # of the frame that the cutout fills
        image = np.empty((len(bands), size, size), np.float32)
        noise = np.empty(len(bands))
        missing = 0.0
        for k, (band, step) in enumerate(zip(bands, steps, strict=True)):
            if as_they_are:
                values = framed(band.values, size)
                error = None if band.error is None else framed(band.error, size)
            else:
                values, error = resample(band.values, size, step, band.error)
            image[k] = values
            inner = framed(values, side)
            missing = max(missing, float(np.isnan(inner).mean()))
            measured = float(sky_noise(inner[None, None])[0, 0])
            said = math.nan if error is None or np.isnan(error).all() else float(np.nanmedian(error))
            # After resampling neighbours share noise, which a map of independent pixels cannot say.
            noise[k] = said if as_they_are and not math.isnan(said) else measured
            if math.isnan(noise[k]):
                noise[k] = said
        fwhm = np.full(len(bands), np.nan)
        of_frame: list[tuple[np.ndarray, float]] | None = [] if psfs is not None else None
        for k, band in enumerate(bands):
            name = wanted.bands[k]
            given = _first(wanted.psf_fwhms[k], _number(galaxy, "psf_fwhm", name))
            if psfs is not None and of_frame is not None:
                psf, header = psfs[k]
                own = _first(wanted.psf_scale, pixel_scale_of(header), band.scale)
                assert own is not None
                if abs(own / band.scale - 1) > _SAME:
                    self._said.add("whose PSF has pixels of another size, and is brought to the image's")
                of_frame.append((psf, scale / own))
                given = _first(given, fwhm_px(psf, "its PSF") * own)
            fwhm[k] = _first(given, psf_fwhm_said(band.header, band.scale, band.plane), math.nan)
        return FluxCutout(image, scale, noise, fwhm, of_frame, missing)

    # Point spread functions

    def _psfs(
        self, galaxy: Galaxy, stack: ExitStack, found: Sequence[tuple[ScienceFile, Image, int, Any]]
    ) -> list[tuple[np.ndarray, Mapping[str, Any]]] | None:
        """Return image and header of the point spread function of each band; None where there is none."""
        bands = self.wanted.bands
        path = galaxy.psf_image or self.wanted.psf
        if path is not None:
            file = self._opened(path, stack, True)
            images = self._sky_images(file, galaxy.psf_hdu)[0] if galaxy.psf_hdu else file.images()
            if not galaxy.psf_hdu and len(images) > 1 and len(named_planes(file, images)) != len(bands):
                raise OpenQuestionError(
                    f"{path} holds {len(images)} images and not one of each of the {len(bands)} bands: say which is of "
                    "which galaxy with --columns psf_hdu=NAME"
                )
            try:
                planes, _ = planes_of_bands(file, images, bands, by_order=True)
            except UnusableImageError as error:
                raise OpenQuestionError(f"no PSF of each band: {error}") from None
            return [_psf_of(file, image, plane) for image, plane in planes]
        beside = [(band, path) for kind, band, path in galaxy.files.maps if kind == "psf"]
        psfs = []
        for k, band in enumerate(bands):
            own = [path for of_band, path in beside if of_band in ("", band)]
            if own:
                file = self._opened(own[0], stack, False)
                psfs.append(_psf_of(file, *_plane_of(file, bands, k)))
                continue
            file = found[k][0]
            inside = (
                [image for kind, image in images_by_kind(file, file.images())[1] if kind == "psf"]
                if (not galaxy.hdu)
                else []
            )
            said = [image for image in inside if band_key(band_said(image)) == band_key(band)]
            if said or (len(inside) == 1 and inside[0].num_planes() in (1, len(bands))):
                image = (said or inside)[0]
                psfs.append(_psf_of(file, image, k if image.num_planes() == len(bands) > 1 else 0))
            elif len(inside) == len(bands):
                psfs.append(_psf_of(file, inside[k], 0))
        return psfs if len(psfs) == len(bands) else None


def _refuse_other_places(names: Sequence[str], bands: Sequence[_Band], coarsest: float) -> None:
    """Refuse bands that are turned against each other, or whose middles lie apart by more than a pixel."""
    frames = [sky_frame_of(band.header) for band in bands]
    first = next((k for k, frame in enumerate(frames) if frame is not None), 0)
    one = frames[first]
    for k, other in enumerate(frames):
        if one is None or other is None or k == first:
            continue
        if one.is_turned(other):
            raise UnusableImageError(
                f"its bands {names[first]} and {names[k]} are turned against each other on the sky: reproject them "
                "first",
                "bands turned",
            )
        middles = [
            (each.values.shape[1] / 2 + 0.5, each.values.shape[0] / 2 + 0.5) for each in (bands[first], bands[k])
        ]
        if (apart := one.distance(*middles[0], other, *middles[1])) > coarsest:
            raise UnusableImageError(
                f"the middles of its bands {names[first]} and {names[k]} lie {apart:.3g} arcsec apart on the sky",
                "bands of different places",
            )


def _is_interpolated(header: Mapping[str, Any], scale: float | None) -> bool:
    """Tell whether an image is one of the Legacy Surveys' cutout service at another scale than that of its images.

    The service interpolates and does not divide the flux: noise a pixel is the same at 0.1 arcsec as at 0.262.
    """
    surveys = ("DECALS", "LEGACYSURVEY", "LS-", "BASS", "MZLS")
    own = str(header.get("SURVEY", "")).upper().startswith(surveys) and "IMAGEW" in header
    return own and scale is not None and abs(scale / LEGACY_PX - 1) > 0.01


def sky_level(values: np.ndarray) -> SkyLevel:
    """Measure level and noise of the sky in the border of a plane (H, W), a tenth of its side wide.

    The level is the median of what lies within three standard deviations of it, and so that of the darkest corner, an
    eighth of the side large, in which a galaxy's wings are faintest.
    """
    height, width = values.shape
    edge = max(2, round(_BORDER * min(values.shape)))
    border = np.ones(values.shape, bool)
    border[edge : height - edge, edge : width - edge] = False
    level, noise = _clipped(values[border])
    rows, columns = max(2, height // 8), max(2, width // 8)
    corners = [values[y, x] for y in (slice(rows), slice(-rows, None)) for x in (slice(columns), slice(-columns, None))]
    darkest = [_clipped(corner)[0] for corner in corners]
    known = [each for each in darkest if math.isfinite(each)]
    return SkyLevel(level, noise, min(known) if known else math.nan)


def _clipped(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    level, noise = 0.0, 0.0
    for _ in range(6):
        level = float(np.median(values))
        noise = 1.4826 * float(np.median(np.abs(values - level)))
        kept = values[np.abs(values - level) <= _CLIP * noise]
        if len(kept) in (0, len(values)):
            break
        values = kept
    return level, noise


def psf_frames(psfs: Sequence[tuple[np.ndarray, float]], size: int) -> np.ndarray:
    """Return point spread functions (B, P, P), float32, on the pixels of a frame."""
    return np.stack([prepared_psf(psf, size, step, "the PSF") for psf, step in psfs]).astype(np.float32)


def psf_size(psfs: Sequence[tuple[np.ndarray, float]], size: int) -> int:
    """Return how many pixels a side, an odd number, frames of point spread functions need, no more than an image."""
    longest = max(max(psf.shape) / step for psf, step in psfs)
    most = size - 1 if size % 2 == 0 else size
    return max(3, min(most, 2 * math.ceil((longest - 1) / 2) + 1))


def _maps_of(
    image: Image, sky: Sequence[Image], maps: Sequence[tuple[str, Image]], file: ScienceFile
) -> list[tuple[str, Image]]:
    """Return the maps in a file that belong to one of its images of the sky.

    Those of the same band; or with the same EXTVER; or, of as many as there are images, that in the same place; or the
    only one of its kind.
    """
    found = []
    band, version = band_said(image), image.header.get("EXTVER")
    for kind in dict.fromkeys(kind for kind, _ in maps):
        of_kind = [other for each, other in maps if each == kind]
        same_band = [other for other in of_kind if band and band_said(other) == band]
        same_version = [other for other in of_kind if version is not None and other.header.get("EXTVER") == version]
        if len(same_band) == 1:
            found.append((kind, same_band[0]))
        elif len(sky) > 1 and len(same_version) == 1:
            found.append((kind, same_version[0]))
        elif len(of_kind) == len(sky):
            found.append((kind, of_kind[sky.index(image)]))
        elif len(of_kind) == 1 and not band_said(of_kind[0]):
            found.append((kind, of_kind[0]))
    return found


def _one_of(file: ScienceFile, bands: Sequence[str], k: int) -> Image:
    """Return the image of a band in a file of maps."""
    return _plane_of(file, bands, k)[0]


def _plane_of(file: ScienceFile, bands: Sequence[str], k: int) -> tuple[Image, int]:
    images = [image for image in file.images() if min(image.size()) > 1]
    if not images:
        raise UnusableImageError(f"{file.path} holds no image", "no image of the sky")
    if len(images) == 1:
        return images[0], k if images[0].num_planes() == len(bands) else 0
    return planes_of_bands(file, images, bands, by_order=True)[0][k]


def _psf_of(file: ScienceFile, image: Image, plane: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    whole = slice(None)
    return np.asarray(image.values(plane, whole, whole), np.float64), image.header


def _number(galaxy: Galaxy, name: str, band: str) -> float | None:
    """Return a number of the catalogue for a band or for all."""
    for each in (f"{name}_{band}", name):
        value = galaxy.numbers.get(each, math.nan)
        if not math.isnan(value):
            return value
    return None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
