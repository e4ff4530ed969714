"""Sets of galaxies of any origin against the test galaxies of a prepared dataset, in all ways that a checkpoint is.

The comparisons are those of `comparison.COMPARISONS`: the report of a checkpoint is this with generated galaxies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.layout import DataLayout
from galaxies.datasets.prepared import PreparedDataset
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, Measured, Statistic
from galaxies.validation.comparison import (
    SetPair,
    compare_as_sets,
    compare_features,
    compare_statistics,
    compare_variety,
    groups_of,
)
from galaxies.validation.evaluation import Clock
from galaxies.validation.feature_spaces import FeatureSpace
from galaxies.validation.judge import Judge
from galaxies.validation.morphology import of_visible
from galaxies.validation.report.cells import ALL, LeftOut
from galaxies.validation.report.realism import Realism, ValuesCompared
from galaxies.validation.report.sets_contents import (
    FORMAT_VERSION,
    Differing,
    Ends,
    Example,
    Reference,
    SetCompared,
    SetsReport,
    Telescope,
    Unreadable,
    multiples_of,
)
from galaxies.validation.set_reading import FitsOptions, ReadSet, Wanted, check_set, read_set
from galaxies.validation.subject import Galaxies, choose_spaces, load_judge, real_sample
from galaxies.validation.telescope_matching import Matched, Observed, match_flux, match_pictures
from galaxies.validation.viewing import Viewer

FEWEST = 20  # galaxies of a set, and half of those of the reference
_NAMED, _EXAMPLES = 5, 6  # statistics that are shown with examples, and examples of either end
_END = 0.1  # part of a set that is one of its ends
_SAID = 10  # unreadable files that are named


@dataclass(frozen=True)
class SetsPictures:
    """What the plots of a comparison of sets are drawn from besides its numbers.

    Attributes
    ----------
    viewer : Viewer
        Makes pictures of images.
    real : Galaxies
        Of the reference.
    sets : list of Galaxies
    real_names, names : list of str, list of lists of str
        Of the galaxies.
    matched : list of (Tensor, Tensor) or None
        A few of each set and of the reference as one telescope would have seen them.
    """

    viewer: Viewer
    real: Galaxies
    sets: list[Galaxies]
    real_names: list[str]
    names: list[list[str]]
    matched: list[tuple[Tensor, Tensor] | None]


@dataclass(frozen=True)
class SetsEvaluation:
    """A finished comparison of sets: the numbers, and what the plots are drawn from."""

    report: SetsReport
    pictures: SetsPictures


def compare_sets(
    reference: Path,
    paths: Sequence[Path],
    count: int,
    seed: int,
    device: str,
    steps: int = 150,
    crop: float = 1.0,
    fits: FitsOptions | None = None,
) -> SetsEvaluation:
    """Compare sets with a prepared dataset.

    Parameters
    ----------
    reference : Path
        Prepared dataset, of which the test split is taken.
    paths : sequence of Path
        See `set_reading.read_set`.
    count : int
        Galaxies of a set and of the reference, at most.
    seed : int
        Of every random draw.
    device : str
        As in `Engine.choose`.
    steps : int
        Batches that the network learns from which tells sets apart.
    crop, fits
        As in `set_reading.Wanted`.

    Raises
    ------
    UserError
        If a set or the reference cannot be used, they have no band in common, or there are too few galaxies.
    """
    clock = Clock()
    for path in paths:
        check_set(path)
    data = PreparedDataset.open(reference)
    rows = real_sample(data, "test", count, seed)
    if len(rows) < 2 * FEWEST:
        raise UserError(
            f"{reference} has {len(rows)} test galaxies, and {2 * FEWEST} are needed to compare with: prepare more data"
        )
    apart = {str(name) for name in data.catalogue["object_id"].iloc[np.r_[data.rows("test"), data.rows("judge")]]}
    scale = data.settings(())["pixel_scale"] if data.layout.is_flux else 0.0
    wanted = Wanted(data.layout, data.image_size, scale, count, seed, apart, crop, fits or FitsOptions())
    copies = {image.tobytes() for image in data.images[np.r_[data.rows("test"), data.rows("judge")]]}
    sets = [_without_copies(read_set(path, wanted), copies) for path in paths]
    for found in sets:
        if len(found.names) < FEWEST:
            raise UserError(
                f"{found.path} has {len(found.names)} galaxies that can be compared, and {FEWEST} are needed"
            )
    names = _common_bands(data.layout, sets)
    sets = [found.in_bands(names) for found in sets]
    clock.lap("reading")
    engine = Engine.choose(device, "fp32")
    with engine.kernels():
        against = _Reference.open(data, rows, names, engine, device, steps, seed, count)
        clock.lap("judge")
        compared = [against.compare(found, label) for found, label in zip(sets, labels_of(paths), strict=True)]
    clock.lap("comparing")
    report = SetsReport(
        FORMAT_VERSION,
        _described(data, names, len(rows), scale),
        against.judge if isinstance(against.judge, LeftOut) else dict(against.judge.card),
        count,
        steps,
        seed,
        [each[0] for each in compared],
        clock.seconds,
    )
    pictures = SetsPictures(
        against.viewer,
        against.real,
        [each[1] for each in compared],
        against.names,
        [found.names for found in sets],
        [each[2] for each in compared],
    )
    return SetsEvaluation(report, pictures)


def labels_of(paths: Sequence[Path]) -> list[str]:
    """Return what sets are called: the last part of each path, with as many before it as tell them apart."""
    parts = [path.absolute().parts for path in paths]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        labels = ["/".join(each[-length:]) for each in parts]
        if len(set(labels)) == len(labels):
            return labels
    counts: Counter[str] = Counter()
    for place, label in enumerate(labels := [each[-1] for each in parts]):
        counts[label] += 1
        labels[place] = label if counts[label] == 1 else f"{label} ({counts[label]})"
    return labels


def _without_copies(found: ReadSet, copies: set[bytes]) -> ReadSet:
    """Leave out what is the reference's own, pixel for pixel, under whatever name."""
    own = np.array([image.tobytes() not in copies for image in found.images], dtype=bool)
    if own.all():
        return found
    return replace(found.of_rows(np.flatnonzero(own)), shared=found.shared + int((~own).sum()))


def _common_bands(layout: DataLayout, sets: Sequence[ReadSet]) -> tuple[str, ...]:
    """Return the bands that the reference and all sets have, in the reference's order."""
    names = layout.band_names
    for found in sets:
        names = tuple(name for name in names if name in found.band_names)
        if not names:
            raise UserError(
                f"{found.path} has the band{'s' * (len(found.band_names) > 1)} {', '.join(found.band_names)}, of which "
                f"none is in common with the reference's {', '.join(layout.band_names)}"
                f"{' and the other sets' * (len(sets) > 1)}: --bands names those of FITS files"
            )
    return names


def _described(data: PreparedDataset, names: tuple[str, ...], galaxies: int, scale: float) -> Reference:
    return Reference(
        path=str(data.path),
        source=data.manifest.get("source"),
        sha256=data.manifest["sha256"],
        kind="flux" if data.layout.is_flux else "display",
        bands=list(names),
        classes=list(data.layout.classes),
        class_labels=list(data.layout.class_labels),
        galaxies=galaxies,
        image_size=data.image_size,
        pixel_scale=scale if data.layout.is_flux else None,
    )


@dataclass(frozen=True)
class _Reference:
    """The reference, measured, and by what sets are compared with it."""

    real: Galaxies
    names: list[str]
    observed: Observed
    learned: tuple[np.ndarray, np.ndarray]
    judge: Judge | LeftOut
    viewer: Viewer
    spaces: tuple[FeatureSpace, ...]
    pixel_scale: float
    engine: Engine
    device: str
    steps: int
    seed: int

    @classmethod
    def open(
        cls,
        data: PreparedDataset,
        rows: np.ndarray,
        names: tuple[str, ...],
        engine: Engine,
        device: str,
        steps: int,
        seed: int,
        count: int,
    ) -> _Reference:
        """Measure galaxies (rows) of a dataset in some of its bands."""
        layout, planes = data.layout, [data.layout.band_names.index(name) for name in names]
        if names == layout.band_names:
            judge, viewer = load_judge(data, device), Viewer.of_dataset(data)
        else:
            judge = LeftOut(
                f"the judge sees {', '.join(layout.band_names)}, and the sets share {', '.join(names)} alone"
            )
            told, widths = data.settings(()), data.seen_widths("train")
            viewer = Viewer(
                DataLayout("flux", tuple(layout.bands[k] for k in planes), layout.classes),
                tuple(told["softening"][k] for k in planes),
                told["pixel_scale"],
                tuple(widths[k] for k in planes),
            )
        images = torch.from_numpy(np.ascontiguousarray(data.images[rows][:, planes]))
        learned = real_sample(data, "judge", count, seed)
        unknown = np.full((len(rows), len(planes)), np.nan)
        flux = layout.is_flux
        observed = Observed(
            images,
            data.noise(rows)[:, planes].astype(np.float64) if flux else unknown,
            data.psf_fwhm(rows)[:, planes].astype(np.float64) if flux else unknown,
            data.settings(()).get("psf_profile", "") if flux else "",
        )
        return cls(
            _measured(images, data.classes(rows), viewer, engine, "the reference"),
            data.catalogue["object_id"].iloc[rows].tolist(),
            observed,
            (np.ascontiguousarray(data.images[learned][:, planes]), data.classes(learned)),
            judge,
            viewer,
            choose_spaces(judge, images, engine, viewer),
            data.settings(())["pixel_scale"] if flux else 0.0,
            engine,
            device,
            steps,
            seed,
        )

    def compare(self, found: ReadSet, label: str) -> tuple[SetCompared, Galaxies, tuple[Tensor, Tensor] | None]:
        """Compare a set; return the numbers, its galaxies, and a few of both as one telescope would have seen them."""
        known = {name: index for index, name in enumerate(self.viewer.layout.classes)}
        classes = np.array([known.get(name, -1) for name in found.morphologies], dtype=np.int64)
        images = torch.from_numpy(found.images)
        made = _measured(images, classes, self.viewer, self.engine, label)
        pair = SetPair(
            generated=made,
            real=self.real,
            learned=self.learned,
            judge=self.judge,
            viewer=self.viewer,
            spaces=self.spaces,
            steps=self.steps,
            seed=self.seed,
            device=self.device,
        )
        realism = compare_as_sets(pair)
        variety = compare_variety(images, self.real.images, pair.features[1].get("judge"), pair.groups, self.viewer)
        telescope, matched = self._telescope(found, made, realism)
        counts = Counter(name for name in found.morphologies if name in known)
        report = SetCompared(
            name=label,
            path=str(found.path),
            origin=found.origin,
            galaxies=len(found.names),
            classes={name: counts[name] for name in known if counts[name]},
            unreadable=Unreadable(len(found.unreadable), found.unreadable[:_SAID]),
            shared=found.shared,
            remarks=[*found.remarks, *_of_other_classes(found, known)],
            realism=realism,
            variety=variety,
            differing=self._differing(realism, made, found.names),
            telescope=telescope,
        )
        return report, made, matched

    def _differing(self, realism: Realism, made: Galaxies, names: list[str]) -> list[Differing]:
        """Return the statistics in which a set differs most, with galaxies of both ends."""
        result = []
        for statistic, multiple in ranked(self.viewer.statistics, realism):
            cell = _tables(realism)[statistic.name][ALL]
            assert not isinstance(cell, LeftOut)
            own, real = (of_visible_or_all(part.measured)[statistic.name] for part in (made, self.real))
            result.append(
                Differing(
                    statistic.name,
                    statistic.label,
                    statistic.unit,
                    multiple,
                    cell.w1.value,
                    cell.shift,
                    _percentiles(own),
                    _percentiles(real),
                    _ends(own, names),
                    _ends(real, self.names),
                )
            )
        return result[:_NAMED]

    def _telescope(
        self, found: ReadSet, made: Galaxies, realism: Realism
    ) -> tuple[Telescope | LeftOut, tuple[Tensor, Tensor] | None]:
        """Compare the set with the reference again, as one telescope would have seen both."""
        before = multiples_of(realism.statistics.mean[ALL], realism.features)
        if not before:
            return LeftOut("there are too few galaxies for a distance"), None
        matched: Matched
        if self.viewer.layout.is_flux:
            own = Observed(made.images, found.noise, found.psf_fwhm, found.psf_profile)
            matched = match_flux(own, self.observed, self.pixel_scale, self.seed)
        else:
            matched = match_pictures(made.images, self.real.images, self.seed)
        of_set, of_real = (
            self.viewer.measure(images, self.engine.device, f"measuring matched {name}")
            for images, name in zip(matched.images, ("galaxies", "reference"), strict=True)
        )
        groups = {ALL: groups_of(made.classes, self.real.classes, ())[ALL]}
        statistics = compare_statistics(of_set, of_real, groups, self.seed, self.viewer.statistics)
        spaces = choose_spaces(self.judge, matched.images[1], self.engine, self.viewer)
        features = compare_features(spaces, *matched.images, self.seed)[0]
        after = multiples_of(statistics.mean[ALL], features)
        after = {label: after.get(label, value) for label, value in before.items()}
        cells = {s.label: statistics.table[s.name][ALL] for s in self.viewer.statistics}
        left = [(name, c.w1.multiple) for name, c in cells.items() if not isinstance(c, LeftOut) and c.w1.multiple]
        left.sort(key=lambda row: -row[1])
        some = matched.images[0][:10], matched.images[1][:10]
        return Telescope.of(matched.done, matched.unknown, before, after, left[:_NAMED]), some


def _measured(images: Tensor, classes: np.ndarray, viewer: Viewer, engine: Engine, title: str) -> Galaxies:
    measured = viewer.measure(images, engine.device, f"measuring {title}", morphology=True)
    return Galaxies(images, classes, np.empty((len(classes), 0)), measured, None, {}, {})


def _of_other_classes(found: ReadSet, known: dict[str, int]) -> list[str]:
    others = Counter(name for name in found.morphologies if name and name not in known)
    if not others:
        return []
    names = ", ".join(f"{count} {name}" for name, count in others.most_common(4))
    return [
        f"{others.total()} galaxies have a class that the reference does not know ({names}), and count in all alone"
    ]


def of_visible_or_all(measured: Measured) -> dict[str, np.ndarray]:
    """Return measured values as they are compared: number and pitch of arms where arms are visible."""
    return {**measured.values, **of_visible(measured.values)}


def _tables(realism: Realism) -> dict[str, dict[str, ValuesCompared | LeftOut]]:
    seen = {} if isinstance(realism.morphology, LeftOut) else realism.morphology.table
    return {**realism.statistics.table, **seen}


def ranked(statistics: Sequence[Statistic], realism: Realism) -> list[tuple[Statistic, float]]:
    """Return all statistics that have a distance with its multiple of the floor, the farthest first."""
    rows = []
    tables = _tables(realism)
    for statistic in (*statistics, *MORPHOLOGY_STATISTICS):
        cell = tables.get(statistic.name, {}).get(ALL)
        if cell is not None and not isinstance(cell, LeftOut) and cell.w1.multiple is not None:
            rows.append((statistic, cell.w1.multiple))
    return sorted(rows, key=lambda row: -row[1])


def _percentiles(values: np.ndarray) -> tuple[float, float, float]:
    low, middle, high = np.nanpercentile(values, (16, 50, 84)).tolist()
    return low, middle, high


def _ends(values: np.ndarray, names: Sequence[str]) -> Ends:
    """Return galaxies spread over the lowest and over the highest tenth of the known values."""
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    places = ((np.arange(_EXAMPLES) + 0.5) / _EXAMPLES * _END * len(order)).astype(int)
    low, high = order[places], order[::-1][places]
    return Ends(*([Example(names[k], float(values[k])) for k in part.tolist()] for part in (low, high)))
