"""Count the operations of a training step by kind, as a GPU would be given them; needs no GPU.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --recipe paper --precision bf16

Prints one JSON object. On a GPU steps as small as these take as long as they have kernels, so their number is what
there is to lower where no GPU is at hand. Counted is what PyTorch dispatches below autograd, forward and backward, on
average over a period of the gradient penalty, while the code takes the branches that it takes while a CUDA graph is
recorded. An operation is about a kernel: a convolution's bias and the gradients of its input, weight and bias are
counted as those of their own that they are on CUDA, and views not at all. What `--compile` fuses is not seen.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import roofline, timing
from benchmarks.training_access import TOTAL_STEPS, made_data, make_trainer
from benchmarks.training_step import CONFIG_OPTIONS, PHASES
from galaxies.command_line import Parser, add_config_options, config_from_options, run_script
from galaxies.common import hardware
from galaxies.training.trainer import Trainer

_OPTIONS = tuple(name for name in CONFIG_OPTIONS if name not in ("device", "engine", "compile"))

# The kinds, and what the names of their operations begin with. The first that fits counts; the rest is element-wise.
# fmt: off
_KINDS = {
    "none": ("empty", "new_empty", "detach", "resize_", "set_", "as_strided", "_unsafe_view", "lift_fresh",
             "_record_function"),
    "element-wise": ("minimum", "maximum"),
    "casts": ("_to_copy",),
    "products": ("convolution", "mm", "addmm", "bmm", "baddbmm", "mkldnn"),
    "normalisations": ("native_batch_norm", "_native_batch_norm", "cudnn_batch_norm", "_batch_norm"),
    "lists of tensors": ("_fused", "_foreach"),
    "resampling": ("grid_sampler", "upsample", "max_pool", "avg_pool", "_adaptive", "adaptive", "mkldnn_max"),
    "reductions": ("sum", "mean", "max", "min", "amax", "amin", "any", "all", "var", "std", "sort", "argmax", "cumsum",
                   "linalg_vector_norm", "median", "kthvalue", "topk", "count_nonzero", "equal", "nll_loss",
                   "_log_softmax", "_softmax", "binary_cross_entropy"),
    "copies": ("clone", "copy", "cat", "stack", "index", "gather", "scatter", "embedding", "flip", "roll",
               "constant_pad", "replicat", "reflect", "slice_scatter", "slice_backward", "select_backward", "repeat",
               "masked_s"),
    "fills": ("zero", "one", "full", "fill", "arange", "new_zero", "new_one", "new_full", "scalar_tensor", "eye",
              "linspace"),
    "random": ("normal", "uniform", "bernoulli", "rand", "native_dropout"),
}
# fmt: on


class Operations(TorchDispatchMode):
    """Count the operations that are dispatched while it is entered.

    Attributes
    ----------
    counts : Counter of str
        By kind.
    names : Counter of str
        By kind and name of the operation, which do not tell the parts of a convolution apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            name = function._schema.name.split("::")[1]
            kind = kind_of(name)
            if kind != "none":
                self.counts[kind] += _kernels(name, args)
                self.names[f"{kind} {name}"] += 1
                if name == "convolution" and args[2] is not None:
                    self.counts["element-wise"] += 1  # its bias is added by itself
                if name == "convolution_backward" and args[-1][2]:
                    self.counts["reductions"] += 1  # and summed by itself
        return function(*args, **(kwargs or {}))


def kind_of(name: str) -> str:
    """Return the kind of the operation with this name; "none" is one that starts no kernel."""
    bare = name.removesuffix("_") if name not in ("resize_", "set_") else name
    return next((kind for kind, starts in _KINDS.items() if bare.startswith(starts)), "element-wise")


def _kernels(name: str, args: Sequence[Any]) -> int:
    """Return as how many products an operation counts: a convolution's gradients are computed one by one."""
    return sum(args[-1][:2]) if name == "convolution_backward" else 1


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Take the branches that are taken on CUDA while a graph is recorded, as far as another device can."""
    here = frozenset({"cpu"})
    with (
        mock.patch("galaxies.measure.source._is_recorded", lambda planes: True),
        mock.patch("galaxies.measure.source._POOLING", here),
        mock.patch("galaxies.measure.sky.rising", lambda values: values.detach().sort(-1).values),
        mock.patch("galaxies.images.resampling._BY_PRODUCTS", here),
        mock.patch("galaxies.networks.galaxy_frame._ADJOINT_BY_PRODUCT", here),
        mock.patch("galaxies.networks.layers._CHANNEL_STEP", {"cpu": 8}),
        mock.patch("galaxies.networks.layers._TRAINED_OUTPUTS", 0),  # only a CPU adds these channels
    ):
        yield


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="kernels.py", description=__doc__)
    add_config_options(parser, _OPTIONS)
    parser.add_argument("--names", action="store_true", help="count by the names of the operations, too")
    options = parser.parse_args(argv)
    config = config_from_options(options, device="cpu", precision="bf16")
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="galaxy-") as folder:
        trainer = make_trainer(config, made_data(max(64, 2 * config.batch_size)), Path(folder))
        for phase in PHASES:
            trainer.start_phase(phase)
            counted = count_steps(trainer, roofline.PENALTY_EVERY)
            facts[phase] = _a_step(counted.counts) | {"all": counted.counts.total() / roofline.PENALTY_EVERY}
            if options.names:
                facts[f"{phase}_names"] = _a_step(counted.names)
    sizes = {name: getattr(config, name) for name in _OPTIONS}
    timing.print_result("kernels", hardware.describe(trainer.engine.device), sizes, [], facts, facts_only=True)


def count_steps(trainer: Trainer, count: int) -> Operations:
    """Return the operations of the next `count` steps of the trainer's phase, after as many that set things up."""
    with as_on_cuda():
        for _ in range(count):
            trainer.take_step(TOTAL_STEPS)
        with Operations() as counted:
            for _ in range(count):
                trainer.take_step(TOTAL_STEPS)
    return counted


def _a_step(counts: Counter[str]) -> dict[str, float]:
    """Return the counts of a period of the penalty for one step, the largest first."""
    return {name: count / roofline.PENALTY_EVERY for name, count in counts.most_common()}


if __name__ == "__main__":
    run_script(main)
