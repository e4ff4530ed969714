"""Answer the options that ask for galaxies: read the requests, warn of strange ones, and write pictures or shards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.generation.catalogue import generate_pictures
from galaxies.generation.request_options import SHARD_SIZE, Asked
from galaxies.generation.request_tables import stored_requests
from galaxies.generation.requests import RequestSequence, requests_alike, requests_together
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.shards import generate_shards


def answer(options: argparse.Namespace, asked: Asked, sampler: GalaxySampler, checkpoint: Path, rank: Ranks) -> None:
    """Draw what the options ask for, write it, and say what there is.

    Parameters
    ----------
    options : Namespace
        With what `add_request_options` adds.
    asked : Asked
        As `read_request_options` returns it.
    sampler : GalaxySampler
        Of the file `checkpoint`.
    checkpoint : Path
    rank : Ranks
        Several write shards together.

    Raises
    ------
    UserError
        If a request is none, or the output is refused or cannot be written.
    """
    inputs = [path for path in (checkpoint, options.requests) if path is not None]
    if options.rgb is not None:
        sampler.choose_bands([name.strip() for name in options.rgb.split(",")])
    attributes, classes = sampler.attributes, sampler.config.classes
    requests: RequestSequence
    if options.requests is not None:
        requests = stored_requests(options.requests, attributes, options.seed, classes)
    else:
        count, angle = options.count or 16, options.position_angle
        if options.draw == "copula":
            requests = requests_together(options.morphology, sampler.population, options.seed, count, classes, angle)
        else:
            requests = requests_alike(options.morphology, asked.given, attributes, options.seed, count, classes, angle)
    if requests.turned:
        sampler.check_turns()
    if requests.mixed:
        sampler.check_mixes()
    in_shards = bool(options.shard_size or asked.shards or len(requests) > SHARD_SIZE or rank.size > 1)
    if in_shards and asked.shards is None and options.format is not None:
        raise UserError(
            f"--format {options.format} is for up to {SHARD_SIZE:,} images that one process writes without "
            "--shard-size: shards are npy, fits-table or webdataset"
        )
    spectra = bool(getattr(options, "spectrum", False))  # which observe.py does not ask for
    if in_shards and spectra:
        raise UserError("--spectrum is for images of which each has a file of its own: shards have many in one")
    if in_shards and options.names is not None:
        raise UserError("--names is for images of which each has a file of its own: shards have many in one")
    for option, value in (("--catalogue-format", options.catalogue_format), ("--measure", options.measure)):
        if not in_shards and value is not None:
            raise UserError(f"{option} is for shards: ask for them with --shard-size, or leave it out")
    if rank.is_first:
        for sentence in requests.warnings(sampler):
            print(f"warning: {sentence}", file=sys.stderr)
    if in_shards:
        size = options.shard_size or SHARD_SIZE
        kinds = asked.shards or "npy", options.catalogue_format or "csv"
        measure = options.measure != "off"
        done = generate_shards(sampler, requests, options.out, size, checkpoint, rank, inputs, *kinds, measure)
    else:
        few = requests.part(0, len(requests))
        done = generate_pictures(sampler, few, options.out, asked.formats, inputs, options.names == "requests", spectra)
    if rank.is_first:
        print(done)
