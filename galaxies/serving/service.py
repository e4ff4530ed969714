"""Answer requests for galaxies: drawn and measured in batches by one worker a model, then put into a file format."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from config_physics import Morphology
from galaxies.common.device_errors import device_failure
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.generation.build import chunk_size
from galaxies.generation.catalogue import catalogue_of
from galaxies.generation.fits_files import write_fits
from galaxies.generation.observed import ObservedSampler
from galaxies.generation.provenance import file_stem, named_class, png_texts
from galaxies.generation.request_values import RequestError
from galaxies.generation.requests import Requests
from galaxies.images.grids import text_chunks, to_picture
from galaxies.measure import photometry
from galaxies.measure.photometry import NO_SOURCE
from galaxies.measure.statistics_table import PLACES, Measured
from galaxies.mock_field.tiles import FIRST, LAST, MOST_SKY, TILE_PX
from galaxies.serving.answers import (
    VERDICTS,
    AttributeReport,
    EllipseFacts,
    Facts,
    MorphologyFacts,
    SkyFacts,
    Tile,
    Verdict,
)
from galaxies.serving.batching import ImageQueue
from galaxies.serving.cache import BoundedCache
from galaxies.serving.models import ServedModel, rounded
from galaxies.serving.openapi import Route, describe
from galaxies.serving.queries import (
    MAX_SEED,
    PIXELS,
    GalaxyQuery,
    Models,
    Parameters,
    Served,
    SheetParameters,
    kind_for,
)
from galaxies.serving.real_galaxies import RealGalaxies
from galaxies.serving.telescopes import before

_GALAXY_BYTES = 32 * 2**20  # of galaxies that are kept, in case that the same one is asked for in another form
_PICTURE_BYTES = 64 * 2**20  # of finished pictures
_TELESCOPES = 16  # with their exposures, that are kept ready
_PATIENCE_S = 20.0  # for which a request waits
_USES_UNTIL_RECORDED = 3  # see `Recorder`


class DeviceFailureError(Exception):
    """The device that draws failed, for the reason that the text gives; a later request may succeed."""


@dataclass(frozen=True)
class Galaxy:
    """A galaxy that was drawn.

    Attributes
    ----------
    image : Tensor, (B, S, S)
        uint8 of a display, or flux, nJy a pixel.
    values : Tensor, (A,), float32
        Its attributes as requested or drawn from real galaxies, NaN where unknown.
    measured : Measured
        From `GalaxySampler.measure`, if somebody asked; empty until then.
    """

    image: Tensor
    values: Tensor
    measured: Measured = field(default_factory=lambda: Measured({}, np.zeros(0, np.int64)))


@contextmanager
def said_of_devices() -> Iterator[None]:
    """Say in a sentence what a device, or a model, fails at.

    Raises
    ------
    DeviceFailureError
        If memory runs out, a GPU fails, or what is drawn are no pictures.
    """
    try:
        yield
    except Exception as error:
        sentence = str(error) if isinstance(error, UserError) else device_failure(error)
        if sentence is None:
            raise
        raise DeviceFailureError(sentence) from error


class Support(NamedTuple):
    """Whether a galaxy that is asked for is like real ones (one of `VERDICTS`), and its distance to the nearest."""

    verdict: Verdict
    nearest: float | None


class GalaxyService:
    """One model that answers many requests at a time.

    Parameters
    ----------
    model : ServedModel
    most_requests : int
        Requests under way at the same time; more are refused.
    """

    def __init__(self, model: ServedModel, most_requests: int) -> None:
        self.model, self.sampler, self.attributes = model, model.sampler, model.sampler.attributes
        config = self.sampler.config
        self.served = Served(self.attributes, config.classes, config.soft_classes)
        self.flag_bits = photometry.LIGHT_FLAG_BITS if config.kind == "flux" else photometry.FLAG_BITS
        self.fingerprint = model.fingerprint()
        self._kept: BoundedCache[Galaxy] = BoundedCache(_GALAXY_BYTES)
        self._threads = torch.get_num_threads()
        device = self.sampler.engine.device
        cores = torch.get_num_threads() if device.type == "cpu" else 1
        together = cores * chunk_size(self.sampler.config, device)  # fewer would take as long
        self._observing: BoundedCache[ObservedSampler] = BoundedCache(_TELESCOPES)
        self.queue: ImageQueue[tuple[GalaxyQuery, bool], Galaxy] = ImageQueue(
            self._work, together, most_requests, _PATIENCE_S
        )
        if self.sampler.engine.graphs:
            self._record()

    def _record(self) -> None:
        """Draw and measure until graphs are recorded, so that the first visitor need not wait for that."""
        nothing = torch.full((1, len(self.attributes)), math.nan)
        for _ in range(_USES_UNTIL_RECORDED):
            self.sampler.measure(self.sampler.draw(torch.tensor([0]), nothing, [0]))

    def galaxies(
        self, queries: Sequence[GalaxyQuery], measured: bool, is_wanted: Callable[[], bool] = lambda: True
    ) -> list[Galaxy]:
        """Return the galaxies of queries, measured if so wanted; see `ImageQueue.results`."""
        found = self._kept_of(queries)
        wanted = dict.fromkeys(queries)  # each once
        if lacking := [q for q in wanted if q not in found or (measured and not found[q].measured)]:
            items = [(query, measured) for query in lacking]
            found |= dict(zip(lacking, self.queue.results(items, is_wanted), strict=True))
        return [found[query] for query in queries]

    def tiles(self, sheet: SheetParameters) -> list[GalaxyQuery]:
        """Return the queries of a sheet's tiles.

        In a sweep the attributes that are not set are those of one real galaxy, the same in every tile.
        """
        base = sheet.galaxy(self.served)
        if sheet.sweep is None:
            return [replace(base, seed=base.seed + k) for k in range(sheet.count)]
        swept = [attribute.name for attribute in self.attributes].index(sheet.sweep)
        attribute, wanted = self.attributes[swept], torch.tensor(base.wanted)
        drawn = self.sampler.complete(base.class_index, wanted, base.seed).tolist()
        base = replace(base, others=tuple(None if math.isnan(value) else value for value in drawn))
        low, high = attribute.steps_of(attribute.low), attribute.steps_of(attribute.high)
        width = (high - low) / (sheet.count - 1)
        values = [attribute.value_of(low + k * width) for k in range(sheet.count)]
        return [base.with_value(swept, rounded(value)) for value in values]

    def _kept_of(self, queries: Iterable[GalaxyQuery]) -> dict[GalaxyQuery, Galaxy]:
        kept = {query: self._kept.get(query) for query in queries}
        return {query: galaxy for query, galaxy in kept.items() if galaxy is not None}

    def _work(self, items: list[tuple[GalaxyQuery, bool]]) -> list[Galaxy]:
        """Draw and measure what is not there yet; each galaxy once, however often a batch asks for it."""
        with said_of_devices():
            return self._drawn(items)

    def _drawn(self, items: list[tuple[GalaxyQuery, bool]]) -> list[Galaxy]:
        torch.set_num_threads(self._threads)  # a thread that starts while another model draws would keep one core
        queries = list(dict.fromkeys(query for query, _ in items))
        galaxies = self._kept_of(queries)
        if missing := [query for query in queries if query not in galaxies]:
            classes, seeds = torch.tensor([q.class_index for q in missing]), [q.seed for q in missing]
            wanted = torch.tensor([q.wanted for q in missing])
            complete = torch.tensor([[q.others is not None] for q in missing])
            values = torch.where(complete, wanted, self.sampler.complete_all(classes, wanted, seeds))
            shares = self._shares(missing) if any(q.shares is not None for q in missing) else None
            ways = [(q.solver_steps, q.seen_by, q.as_light) for q in missing]
            pictures = self._images(classes, values, seeds, ways, shares)
            # Copies: a galaxy that is kept must not keep all of its batch.
            drawn = [Galaxy(image.clone(), value.clone()) for image, value in zip(pictures, values, strict=True)]
            galaxies |= dict(zip(missing, drawn, strict=True))
        if unmeasured := list({query for query, measured in items if measured and not galaxies[query].measured}):
            images = torch.stack([galaxies[query].image for query in unmeasured])
            table = self.sampler.measure(images)
            for row, query in enumerate(unmeasured):
                galaxies[query] = replace(galaxies[query], measured=table.of(row))
        for query, galaxy in galaxies.items():
            if not query.as_light:  # which is large, and of use to one tile of a sky
                self._kept.put(query, galaxy, galaxy.image.nbytes + 4096)
        return [galaxies[query] for query, _ in items]

    def _shares(self, queries: Sequence[GalaxyQuery]) -> Tensor:
        """Return the shares (N, K) of the classes that are asked for; a class by itself has all."""
        whole = torch.eye(len(self.served.classes))
        return torch.stack([whole[q.class_index] if q.shares is None else torch.tensor(q.shares) for q in queries])

    def previewed(self, query: GalaxyQuery, steps: int | None) -> GalaxyQuery:
        """Return the query of a preview in so many steps, or the query itself of a model that has none."""
        return replace(query, solver_steps=steps) if self.sampler.family.has_solver else query

    def observed(self, query: GalaxyQuery, survey: str, exposure_s: int | None) -> GalaxyQuery:
        """Return the query of what a survey sees of a galaxy.

        Raises
        ------
        RequestError
            If the model paints no light, or none that the survey can see.
        """
        able = ", ".join(name for name, one in self.model.surveys.items() if not isinstance(one, str)) or "none"
        found = self.model.surveys.get(survey, "this model draws pictures, and no light for a telescope to observe")
        if isinstance(found, str):
            raise RequestError(found, "survey", able)
        return replace(query, seen_by=(survey, exposure_s))

    def _telescope(self, seen_by: tuple[str, int | None]) -> ObservedSampler:
        ready = self._observing.get(seen_by)
        if ready is None:
            survey = self.model.surveys[seen_by[0]]
            assert not isinstance(survey, str), "refused before"
            ready = before(self.sampler, survey, seen_by[1])
            self._observing.put(seen_by, ready, 1)
        return ready

    def seen(self, query: GalaxyQuery, galaxy: Galaxy) -> bytes:
        """Return what a survey sees of a galaxy as a PNG file of the survey's own pixels."""
        assert query.seen_by is not None
        picture = self._telescope(query.seen_by).pictures(galaxy.image[None])[0]
        return png_sheet([picture], picture.shape[-1])

    def _images(
        self,
        classes: Tensor,
        values: Tensor,
        seeds: list[int],
        ways: Sequence[tuple[int | None, tuple[str, int | None] | None, bool]],
        shares: Tensor | None,
    ) -> list[Tensor]:
        """Draw images: of previews in their number of steps, what surveys see through their telescopes, or light."""
        images: dict[int, Tensor] = {}
        for way in dict.fromkeys(ways):
            rows = [row for row, wanted in enumerate(ways) if wanted == way]
            number, seen_by, as_light = way
            sampler = self.sampler if seen_by is None else self._telescope(seen_by)
            if number is not None:
                sampler = copy(self.sampler)
                sampler.solver = replace(sampler.solver, name="ddim", num_steps=number)
            draw = sampler.light if as_light else sampler.generate
            mixed = {} if shares is None else {"shares": shares[rows]}
            drawn = draw(classes[rows], values[rows], [seeds[row] for row in rows], **mixed)
            images |= dict(zip(rows, drawn, strict=True))
        return [images[row] for row in range(len(ways))]

    def _given(self, query: GalaxyQuery) -> Tensor:
        """Return what was set (1, A), NaN for the rest."""
        return torch.tensor([[math.nan if value is None else value for value in query.values]])

    # What is answered

    def report(self, query: GalaxyQuery, galaxy: Galaxy) -> Tile:
        """Return requested and measured attributes of a measured galaxy."""
        flag = int(galaxy.measured.flags[0])
        seen = not flag & NO_SOURCE
        attributes = {}
        for index, attribute in enumerate(self.attributes):
            value = query.values[index]
            requested = rounded(float(galaxy.values[index])) if value is None else value
            limits = self.sampler.supported[query.class_index][index]
            found = galaxy.measured.values.get(attribute.name)
            measured = None if found is None else float(found[0])
            attributes[attribute.name] = AttributeReport(
                requested=None if math.isnan(requested) else requested,
                measured=rounded(measured) if measured is not None and seen and math.isfinite(measured) else None,
                set=value is not None,
                supported=limits is not None and (value is None or limits[0] <= value <= limits[1]),
            )
        support = self.support(query)
        # In a sweep what is not set is held all the same.
        notes = self.sampler.unsupported(query.class_index, torch.tensor(query.wanted).double())
        meanings = [text for bit, text in self.flag_bits.items() if flag & bit]
        besides: dict[str, Any] = {}
        if self.sampler.config.kind == "flux":
            others = {n: v for n, v in galaxy.measured.values.items() if n not in attributes and n not in PLACES}
            known = {name: float(value[0]) for name, value in others.items()}
            besides["besides"] = {n: rounded(v) if seen and math.isfinite(v) else None for n, v in known.items()}
        if query.shares is not None:
            of_classes = zip(self.served.classes, query.shares, strict=True)
            besides["shares"] = {name: rounded(share) for name, share in of_classes if share > 0}
        return Tile(
            **besides,
            morphology=self.served.classes[query.class_index],
            seed=query.seed,
            model=query.model,
            attributes=attributes,
            supported=support.verdict == "like",
            support=support.verdict,
            nearest=support.nearest,
            notes=notes,
            ellipse=self._ellipse(galaxy.measured) if seen else None,
            flag=flag,
            flag_meaning="; ".join(meanings) or "sound measurement",
        )

    def _ellipse(self, measured: Measured) -> EllipseFacts | None:
        """Return the ellipse of half-light of a measured galaxy as it lies on its picture.

        Photometry measures the circle that holds half of the light. Its radius is the mean of the two semi-axes of the
        ellipse that does, whatever the profile: to 1 % for Sérsic indices from 0.5 to 4 and axis ratios from 0.25 on,
        and to 5 % from 0.1 on.
        """
        config = self.sampler.config
        is_flux = config.kind == "flux"
        names = ("size_arcsec" if is_flux else "size", "ellipticity", *PLACES)
        values = [float(measured.values[name][0]) for name in names if name in measured.values]
        if len(values) < len(names) or not all(map(math.isfinite, values)):
            return None
        size, ellipticity, x, y, angle = values
        if is_flux:  # whose pictures begin with the last row
            size, y, angle = size / (config.pixel_scale * config.image_size), -y, -angle % 180
        semi_major = 2 * size / (2 - ellipticity)
        found = (0.5 + x, 0.5 + y, semi_major, semi_major * (1 - ellipticity), angle)
        return EllipseFacts(**dict(zip(EllipseFacts.model_fields, map(rounded, found), strict=True)))

    def support(self, query: GalaxyQuery) -> Support:
        """Return how near a query is to real galaxies."""
        wanted = torch.tensor([query.wanted])
        found = self.sampler.support(torch.tensor([query.class_index]), wanted)
        nearest = float(found.nearest[0])
        is_measured = math.isfinite(nearest) and not wanted.isnan().all()
        return Support(VERDICTS[found.verdicts[0]], rounded(nearest) if is_measured else None)

    def catalogue(self, query: GalaxyQuery, galaxy: Galaxy) -> pd.DataFrame:
        """Return the catalogue of one measured galaxy."""
        shares = None if query.shares is None else self._shares([query])
        request = Requests(torch.tensor([query.class_index]), self._given(query), [query.seed], shares=shares)
        return catalogue_of(self.sampler, request, galaxy.values[None], galaxy.measured)

    def fits(self, query: GalaxyQuery, galaxy: Galaxy) -> bytes:
        """Return a measured galaxy as a FITS file."""
        file = io.BytesIO()
        row = self.catalogue(query, galaxy).iloc[0]
        write_fits(file, galaxy.image, row, self.attributes, self.sampler.facts, _today())
        return file.getvalue()

    def png(self, query: GalaxyQuery, galaxy: Galaxy, pixels: int | None) -> bytes:
        """Return a measured galaxy as a PNG file that says what it is, of so many pixels or as many as it was drawn."""
        row = self.catalogue(query, galaxy).iloc[0]
        texts = png_texts(row, self.attributes, self.sampler.facts, _today())
        return self.sheet([galaxy], pixels or self.sampler.config.image_size, texts=texts)

    def file_name(self, query: GalaxyQuery, ending: str) -> str:
        """Return how a file of a galaxy is called, by what was asked for."""
        values = {attribute.name: value for attribute, value in zip(self.attributes, query.values, strict=True)}
        chosen = named_class(self.served.classes, query.class_index, query.shares)
        return f"{file_stem(chosen, values, query.seed, query.model)}.{ending}"

    def sheet(
        self, galaxies: Sequence[Galaxy], pixels: int, num_columns: int = 1, texts: Mapping[str, str] | None = None
    ) -> bytes:
        """Return pictures of galaxies as one PNG file; see `png_sheet`. Those of flux are composites of its bands."""
        pictures = list(self.sampler.pictures(torch.stack([g.image for g in galaxies])))
        return png_sheet(pictures, pixels, num_columns, texts)


class Services:
    """All that the routes work on: the models that are served, and the pictures that were made last.

    Parameters
    ----------
    services : sequence of GalaxyService
        The first one answers where a request names none.
    real : RealGalaxies, optional
        Of which the nearest to a request are shown.

    Attributes
    ----------
    by_id : dict of str to GalaxyService
    served : dict of str to Served
        What each model can be asked for.
    pictures : BoundedCache
        Finished files by their tags.
    """

    def __init__(self, services: Sequence[GalaxyService], real: RealGalaxies | None = None) -> None:
        self.real = real
        self.by_id = {service.model.id: service for service in services}
        self.served: Models = {name: service.served for name, service in self.by_id.items()}
        self.pictures: BoundedCache[bytes] = BoundedCache(_PICTURE_BYTES)
        self._kinds: dict[Any, Any] = {}
        self._description: bytes | None = None

    def kind(self, parameters: type[Parameters]) -> type[Parameters]:
        """Return a kind of request as the models that are served take it."""
        if parameters not in self._kinds:
            self._kinds[parameters] = kind_for(parameters, self.served)
        return self._kinds[parameters]

    def description(self, routes: Sequence[Route]) -> bytes:
        """Return the description of the routes, made once."""
        if self._description is None:
            own = [replace(r, parameters=self.kind(r.parameters)) if r.parameters else r for r in routes]
            self._description = json_text(describe(own), indent=1).encode()
        return self._description

    def facts(self) -> Facts:
        """Return what `/api/model` says: the classes, and each model with its attributes."""
        classes: dict[str, Morphology] = {}  # of a name in several models, as the first calls it
        for service in self.by_id.values():
            for morphology in service.sampler.config.morphologies:
                classes.setdefault(morphology.name, morphology)
        return Facts(
            default=next(iter(self.by_id)),
            morphologies=[
                MorphologyFacts(name=m.name, label=m.label, description=m.description) for m in classes.values()
            ],
            models=[service.model.facts() for service in self.by_id.values()],
            real=None if self.real is None else self.real.describe(),
            pixels=list(PIXELS),
            max_seed=MAX_SEED,
            sky=SkyFacts(pixels=TILE_PX, first=FIRST, last=LAST, most=MOST_SKY),
        )


def _today() -> str:
    """Return the date, UTC, as files of FITS write it."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


def png_sheet(
    images: Sequence[Tensor], pixels: int, num_columns: int = 1, texts: Mapping[str, str] | None = None
) -> bytes:
    """Return pictures (3, S, S) uint8 as one PNG file: tiles of so many pixels, row by row, without gaps.

    `texts` go into its text chunks by their keywords.
    """
    num_columns = min(num_columns, len(images))
    num_rows = -(-len(images) // num_columns)
    canvas = Image.new("RGB", (num_columns * pixels, num_rows * pixels))
    for index, image in enumerate(images):
        row, column = divmod(index, num_columns)
        picture = to_picture(image)
        if picture.width != pixels:
            picture = picture.resize((pixels, pixels), Image.Resampling.LANCZOS)
        canvas.paste(picture, (column * pixels, row * pixels))
    file = io.BytesIO()
    # A quarter of the default's time, and as small for galaxies.
    canvas.save(file, "PNG", pnginfo=text_chunks(texts or {}), compress_type=zlib.Z_RLE)
    return file.getvalue()
