"""What devices can do at most: arithmetic and memory traffic, from data sheets or measured here.

    python benchmarks/peaks.py

Data sheets state the matrix units' rate without sparsity, at the clock that the maker promises. What is measured is a
large product of random matrices and a large copy; it is the limit for a device that the table does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from benchmarks.roofline import Peak
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.compute.device import Engine

_AMPERE = "NVIDIA Ampere GA102 GPU architecture, version 2.0, appendix A"
_ADA = "NVIDIA Ada GPU architecture, version 2, appendix A"

# By the name that the driver gives, since a laptop's chip of nearly the same name is another.
DATA_SHEETS = {
    "NVIDIA H200": Peak({"fp32": 67e12, "bf16": 989e12}, 4.8e12, "NVIDIA H200 data sheet, SXM"),
    "NVIDIA H100 80GB HBM3": Peak({"fp32": 67e12, "bf16": 989e12}, 3.35e12, "NVIDIA H100 data sheet, SXM"),
    "NVIDIA A100-SXM4-80GB": Peak({"fp32": 19.5e12, "bf16": 312e12}, 2.039e12, "NVIDIA A100 data sheet, SXM 80 GB"),
    "NVIDIA GeForce RTX 3070": Peak({"fp32": 20.3e12, "bf16": 40.6e12}, 448e9, _AMPERE),
    "NVIDIA GeForce RTX 3090": Peak({"fp32": 35.6e12, "bf16": 71e12}, 936e9, _AMPERE),
    "NVIDIA GeForce RTX 4060": Peak(
        {"fp32": 15.1e12, "bf16": 30.2e12}, 272e9, "24 multiprocessors at 2.46 GHz, 128 bits at 17 Gbit/s"
    ),
    "NVIDIA GeForce RTX 4090": Peak({"fp32": 82.6e12, "bf16": 165.2e12}, 1.008e12, _ADA),
}

_SIDES = {"cuda": 8192, "mps": 4096, "cpu": 1536}  # of the matrices: enough to fill the device
_COPIED = {"cuda": 4 << 30, "mps": 1 << 30, "cpu": 256 << 20}  # bytes: far more than any cache


def peak_of(device: torch.device) -> Peak:
    """Return what the device can do by its data sheet, or as measured here where there is none."""
    known = DATA_SHEETS.get(hardware.device_name(device))
    return known or measured_peak(device)


def measured_peak(device: torch.device, side: int | None = None, num_bytes: int | None = None) -> Peak:
    """Multiply two random matrices and copy a large tensor, a few times each; the fastest counts.

    Parameters
    ----------
    device : torch.device
    side : int, optional
        Of the matrices; by default what fills the device.
    num_bytes : int, optional
        To copy.
    """
    side, num_bytes = side or _SIDES[device.type], num_bytes or _COPIED[device.type]
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        result = torch.empty_like(left)
        rates[name] = 2 * side**3 / _fastest(lambda a=left, b=right, out=result: torch.mm(a, b, out=out), device)
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    copied = 2 * num_bytes / _fastest(lambda: target.copy_(source), device)
    return Peak(rates, copied, "measured: the fastest of five matrix products and of five copies")


def _fastest(work, device: torch.device) -> float:
    return min(timing.in_turns({"": work}, 5, device)[""])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    add_device_option(parser)
    parser.add_argument(
        "--side", type=timing.at_least(1), metavar="N", help="rows of the matrices (default: by device)"
    )
    parser.add_argument(
        "--copied", type=timing.at_least(4), metavar="N", help="bytes that are copied (default: by device)"
    )
    options = parser.parse_args(argv)
    device = Engine.choose(options.device, "fp32").device
    facts: dict[str, float | str] = {}
    known = DATA_SHEETS.get(hardware.device_name(device))
    for kind, peak in (("data_sheet", known), ("measured", measured_peak(device, options.side, options.copied))):
        if peak is not None:
            facts |= {f"{kind}_{name}_tflop_per_s": float(f"{v / 1e12:.4g}") for name, v in peak.flops_per_s.items()}
            facts[f"{kind}_gbyte_per_s"] = float(f"{peak.bytes_per_s / 1e9:.4g}")
            facts[f"{kind}_source"] = peak.source
    timing.print_result("peaks", hardware.describe(device), {"side": options.side}, [], facts, facts_only=True)


if __name__ == "__main__":
    run_script(main)
