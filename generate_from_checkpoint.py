"""Generate galaxies with requested attributes from a checkpoint.

    python generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt --morphology spiral --count 16
    python generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt --requests wanted.csv --format png,fits
    python generate_from_checkpoint.py --checkpoint checkpoints/flux/latest.pt --set magnitude_r=20.5 \
        --set color_g_r=0.7 --format fits
    torchrun --nproc_per_node 8 generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt \
        --draw copula --count 1000000 --format fits-table --out mock

Attributes that are not set are drawn from real galaxies of the class. Image k depends on the checkpoint, on its
condition and on seed + k alone. The output folder gets grid.png, images/, images.npz and catalogue.csv, which
lists what was requested and what photometry measured on the image.

A run of flux draws nanojansky a pixel, a plane a band: npz and fits hold float32, the rows in the order of FITS, and
png a picture for people (Lupton et al. 2004), the first row below as FITS viewers show it.

More than 10,000 images are written in shards: images_00000.npy (uint8, N x 3 x S x S, of flux float32, N x B x S x S;
numpy.load(FILE, mmap_mode="r") reads it) with catalogue_00000.csv, and so on. The same command goes on where it was
stopped. --format fits-table and webdataset, and --catalogue-format parquet, write what other programs load; --draw
copula draws classes and attributes together, as real galaxies have them. Under torchrun each process writes its part of
the shards; what is in them is the same for any number of processes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from config_physics import Attribute
from galaxies.command_line import (
    Parser,
    add_device_option,
    add_solver_options,
    need_packages,
    run_script,
    solver_settings,
)
from galaxies.generation.request_options import (
    add_request_options,
    attributes_of_user,
    read_request_options,
    with_values,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    words = sys.argv[1:] if argv is None else argv
    own = attributes_of_user(words, _parser())
    options = _parser(own).parse_args(with_values(words, own))
    asked = read_request_options(options)
    if options.spectrum:
        need_packages("astropy", "scipy")
    # torch loads only after the options are known to be right
    from galaxies.compute.ranks import Ranks
    from galaxies.generation.answering import answer
    from galaxies.generation.sampler import GalaxySampler
    from galaxies.storage.release import default_checkpoint

    rank = Ranks.from_environment()
    checkpoint = options.checkpoint or default_checkpoint(Path("checkpoints"))
    sampler = GalaxySampler.from_checkpoint(checkpoint, rank.own_device(options.device), **solver_settings(options))
    if options.checkpoint is None and rank.is_first:
        print(f"from {checkpoint}")
    answer(options, asked, sampler, checkpoint, rank)


def _parser(own: Sequence[Attribute] = ()) -> Parser:
    parser = Parser(description=__doc__)
    add_request_options(parser, Path("generated"), own)
    parser.add_argument(
        "--spectrum",
        action="store_true",
        help="of runs of flux with a redshift: also write each galaxy's spectrum, a template with its magnitudes, as a "
        "FITS table in spectra/",
    )
    add_device_option(parser)
    add_solver_options(parser)
    return parser


if __name__ == "__main__":
    run_script(main)
