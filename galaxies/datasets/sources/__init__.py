"""Where the galaxies of a dataset come from: one file a kind of source, and the table of all of them."""

from __future__ import annotations

from galaxies.datasets.preparing import FluxSource, Source
from galaxies.datasets.sources import field, fits, galaxy10, galaxy_zoo, galaxy_zoo_votes, labelled

# The subcommands of `prepare_data.py` by name, in the order in which --help shows them.
SOURCES: dict[str, Source] = {
    "gz2": galaxy_zoo.SOURCE,
    "galaxy-zoo": galaxy_zoo_votes.SOURCE,
    "galaxy10": galaxy10.SOURCE,
    "labelled": labelled.SOURCE,
}
# The same for sources of flux.
FLUX_SOURCES: dict[str, FluxSource] = {
    "fits": fits.SOURCE,
    "field": field.SOURCE,
}
