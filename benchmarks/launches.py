"""Tell what the processor does in a training step on a GPU: kernels it starts, graphs it replays, waits.

    python benchmarks/launches.py
    python benchmarks/launches.py --recipe paper --precision bf16

Prints one JSON object, and fails if a step waits for the GPU, or is not captured without --engine eager. A step that is
captured as a CUDA graph shows one or a few graph launches and hardly any kernel launch; a step that waits for the GPU
shows waits, or is caught by PyTorch's own check, which names the operation and the line of ours that asked for it.
Steps that begin an epoch are checked by themselves, and may wait. Calls are those that the profiler saw, a step, on
average over whole periods of the gradient penalty.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import roofline, timing
from benchmarks.training_access import TOTAL_STEPS, made_data, make_trainer
from benchmarks.training_step import CONFIG_OPTIONS, PHASES
from galaxies.command_line import Parser, add_config_options, config_from_options, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError
from galaxies.training.trainer import Trainer

_CALLS = {
    "kernel_launches": ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchCooperativeKernel"),
    "graph_launches": ("cudaGraphLaunch", "cuGraphLaunch"),
    "waits": ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cuStreamSynchronize"),
    "copies": ("cudaMemcpy", "cuMemcpy"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="launches.py", description=__doc__)
    add_config_options(parser, CONFIG_OPTIONS)
    parser.add_argument(
        "--periods",
        type=timing.at_least(1),
        default=4,
        metavar="N",
        help=f"steps that are looked at, in periods of {roofline.PENALTY_EVERY} (default: 4)",
    )
    options = parser.parse_args(argv)
    config = config_from_options(options)
    if not torch.cuda.is_available():
        raise UserError("launches are counted on a CUDA device, and there is none here")
    steps = options.periods * roofline.PENALTY_EVERY
    facts: dict[str, Any] = {}
    faults = []
    with tempfile.TemporaryDirectory(prefix="galaxy-") as folder:
        trainer = make_trainer(config, made_data(max(1024, config.batch_size)), Path(folder))
        device = trainer.engine.device
        for phase in PHASES:
            trainer.start_phase(phase)
            for _ in range(2 * steps):  # whatever is captured is captured in these
                trainer.take_step(TOTAL_STEPS)
            calls = count_calls(_profiled(lambda: trainer.take_step(TOTAL_STEPS), steps, device), steps)
            facts |= {f"{phase}_{name}_a_step": value for name, value in calls.items()}
            facts[f"{phase}_step_is_captured"] = calls["graph_launches"] >= 1
            waits = first_waits(trainer, steps)
            facts |= {f"{phase}_step_waits": waits["step"], f"{phase}_epoch_start_waits": waits["epoch start"]}
            faults += faults_of(phase, calls, waits["step"], may_capture=config.engine != "eager")
    sizes = {name: getattr(config, name) for name in CONFIG_OPTIONS}
    timing.print_result("launches", hardware.describe(device), sizes | {"steps": steps}, [], facts, facts_only=True)
    if faults:
        raise UserError("; ".join(faults))


def count_calls(names: Iterable[str], steps: int) -> dict[str, float]:
    """Count the calls of CUDA's interface, by their kind, a step.

    Parameters
    ----------
    names : iterable of str
        Of all events that the profiler saw in `steps` steps.
    steps : int
    """
    counts = dict.fromkeys(_CALLS, 0)
    for name in names:
        for kind, starts in _CALLS.items():
            counts[kind] += name.startswith(starts)
    return {kind: round(count / steps, 2) for kind, count in counts.items()}


def faults_of(phase: str, calls: dict[str, float], complaint: str | None, may_capture: bool = True) -> list[str]:
    """Say what of a step should not be: that it is not captured, or that the processor waits in it.

    Parameters
    ----------
    phase : str
    calls : dict
        As `count_calls` returns them.
    complaint : str or None
        Of PyTorch's own check.
    may_capture : bool
        Whether it was asked to be captured.
    """
    faults = []
    if may_capture and calls["graph_launches"] < 1:
        faults.append(f"the {phase} step is not captured as a graph")
    if calls["waits"] >= 1:
        faults.append(f"the {phase} step waits for the GPU {calls['waits']:g} times")
    elif complaint is not None:
        faults.append(f"the {phase} step waits for the GPU: {complaint}")
    return faults


def _profiled(step: Callable[[], None], steps: int, device: torch.device) -> list[str]:
    """Return the names of the events of some steps."""
    timing.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
    return [event.name for event in profiler.events()]


def first_waits(trainer: Trainer, steps: int) -> dict[str, str | None]:
    """Say what first makes the processor wait in `steps` within epochs, and in one more that begins an epoch.

    Returns
    -------
    dict of str to str or None
        For "step" and "epoch start" the operation and its place, as `_complaint` says them; None where nothing waits.
    """

    def step() -> None:
        trainer.take_step(TOTAL_STEPS)

    batches, device, within = trainer.batches, trainer.engine.device, None
    for _ in range(steps):
        if batches.is_over:
            batches.end_epoch()
            batches.start_epoch()
        if within := _complaint(step, device):
            break
    batches.end_epoch()
    return {"step": within, "epoch start": _complaint(step, device)}


def _complaint(step: Callable[[], None], device: torch.device) -> str | None:
    """Return which operation of a step makes the processor wait, and where ours asked for it; None if none does."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    names = _Failed()
    try:
        with names:
            step()
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return f"{names.operation or 'an operation'} {_place_of(error)}"
    finally:
        torch.cuda.set_sync_debug_mode(before)
        timing.synchronize(device)
    return None


class _Failed(TorchDispatchMode):
    """Remember the first operation that raised an error."""

    operation = ""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        try:
            return function(*args, **(kwargs or {}))
        except RuntimeError:
            self.operation = self.operation or str(function)
            raise


def _place_of(error: BaseException) -> str:
    """Say where in our own code an error comes from: the innermost of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(hardware.ROOT / "galaxies")]
    if not ours:
        return "outside of galaxies/"
    frame = ours[-1]
    place = Path(frame.filename).relative_to(hardware.ROOT).as_posix()
    return f"in {frame.name} at {place}:{frame.lineno}: {frame.line}"


if __name__ == "__main__":
    run_script(main)
