"""What something ran on: the device, its memory, the versions of the software, and the commit of the code."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]


def describe(device: torch.device, commit: str | None = None) -> dict[str, Any]:
    """Describe the machine and the software.

    Parameters
    ----------
    device : torch.device
        Where it computes.
    commit : str, optional
        Of the code; by default what git says of the folder.

    Returns
    -------
    dict
        ``device`` (its name), ``device_type``, ``memory_gb`` (of the device; 1e9 bytes), ``cores`` (that this process
        may use), ``threads`` (of torch), ``system``, the versions ``python``, ``torch``, ``cuda`` and ``cudnn``,
        ``commit`` and ``clean`` (no tracked file differs from the commit; None where git does not say).
    """
    on_cuda = device.type == "cuda"
    found, clean = _git_state()
    return {
        "device": device_name(device),
        "device_type": device.type,
        "memory_gb": memory_gb(device),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
        "commit": commit or found,
        "clean": clean,
    }


def device_name(device: torch.device) -> str:
    """Return what the maker calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()} MPS" if device.type == "mps" else _processor()


def file_stem(name: str) -> str:
    """Turn a device's name into the stem of its results file: NVIDIA H200 to nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def usable_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """Return the processor's name, which each system keeps elsewhere."""
    if sys.platform == "linux":
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def memory_gb(device: torch.device) -> float | None:
    """Return the device's memory in units of 1e9 bytes, None where the system does not tell."""
    if device.type == "cuda":
        return round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _git_state() -> tuple[str | None, bool | None]:
    """Return the folder's commit, and whether its tracked files are those of the commit."""
    commit = _output("git", "rev-parse", "HEAD")
    if not commit:
        return None, None
    changes = _output("git", "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else not changes


def _output(*command: str) -> str | None:
    """Return what a command prints, None if it fails or is not there."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
