"""What a run's checkpoint and a release have to be, entry by entry, before anything is built of them.

`check_run` holds content of today's format (see `migrations`) against the settings in it: what the networks that these
make are called, their shapes, which numbers can stand where. Whoever adds an entry to a checkpoint adds its line here,
or none can be read again. What passes can be drawn with, gone on with, measured and served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from config_physics import Config
from diffusion_model import build_diffusion_generator
from galaxies.common.attributes import LARGEST_VALUE
from galaxies.common.schema import (
    Check,
    SchemaError,
    anything,
    brief,
    either,
    entries,
    exactly,
    flag,
    items,
    mapping,
    number,
    text,
    whole,
)
from galaxies.storage.power_averages import KEPT_LENGTHS, averaged_parts
from gan_model import build_discriminator, build_gan_generator
from physics_model import build_predictor

# What the checkpoint of a run holds at least, and a release too: what drawing takes.
RUN_STATE = ("config", "phase", "epoch", "step", "networks", "ema", "attributes", "population", "provenance")
# What going on takes besides.
TRAINING_STATE = (
    *("optimizers", "claims", "recovery", "random", "batches"),
    *("metrics", "warnings", "skipped", "health", "meters"),
)
# By `Config.family`: what builds each network but the predictor. Only training needs another than the generator.
NETWORKS: dict[str, dict[str, Callable[[Config], nn.Module]]] = {
    "GAN": {"generator": build_gan_generator, "discriminator": build_discriminator},
    "diffusion": {"generator": build_diffusion_generator},
}

_MOST = 2**53  # of whatever is counted
_LARGEST_WEIGHT = 1e12  # no training comes near it, and its square is a float still
_LARGEST_VALUE = 1e6  # of an attribute of a real galaxy, sentinels of old datasets included
_LEAST_PART = 2.0**-40  # of a step size that was halved again and again
_LARGEST_EXPONENT = 700.0  # e to it is a number still
# Names of tensors that are no weights, and the least that they can be.
_LEAST = {"running_var": 0.0, "prior_variance": 0.0, "deviation": 1e-12, "num_batches_tracked": 0.0, "strength": 0.0}


class Unfilled(TorchFunctionMode):
    """Build networks whose weights have shapes and no values: of any size, in no memory and no time."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func == torch.empty:
            return func(*args, **kwargs | {"device": "meta"})
        # What fills a weight; drawing one that has no values would load torch's compiler.
        fills = getattr(func, "__module__", None) == "torch.nn.init" or (name[-1:] == "_" and name[-2:] != "__")
        if fills and (filled := args[0] if args else kwargs["tensor"]).is_meta:
            return filled
        return func(*args, **kwargs)


def networks_of(config: Config) -> dict[str, nn.Module]:
    """Return the networks of a training with these settings by name, with weights on the meta device."""
    builders = NETWORKS[config.family] | {"predictor": build_predictor}
    with Unfilled():
        return {name: build(config) for name, build in builders.items()}


def check_run(state: dict[str, Any]) -> None:
    """Check the content of a run's checkpoint or of a release, of today's format.

    Raises
    ------
    SchemaError
        Naming the first entry that is not what it has to be.
    UserError
        If the settings are not those of this program.
    """
    _HEAD(state)
    config = Config.from_dict(state["config"])
    networks = networks_of(config)
    training = _training(state, config, networks)
    goes_on = "optimizers" in state
    if not goes_on and "discriminator" not in state["networks"]:
        networks.pop("discriminator", None)
    drawing = {"format_version": whole(1), **_drawing(state, config, networks, goes_on)}
    entries(drawing | training if goes_on else drawing, training, others=False)(state)


def tensor(
    dtype: torch.dtype,
    shape: Iterable[int | None],
    low: float = -_LARGEST_WEIGHT,
    high: float = _LARGEST_WEIGHT,
    unknown: bool = False,
) -> Check:
    """Accept tensors of a type and a shape, whose numbers lie between two limits, both allowed.

    Parameters
    ----------
    dtype : torch.dtype
    shape : iterable of int or None
        None where any length will do.
    low, high : float
    unknown : bool
        NaN is allowed too.
    """
    return _TensorCheck(dtype, tuple(shape), low, high, unknown)


class _TensorCheck(Check):
    """See `tensor`."""

    def __init__(
        self, dtype: torch.dtype, shape: tuple[int | None, ...], low: float, high: float, unknown: bool
    ) -> None:
        self._dtype, self._shape = dtype, shape
        self._low, self._high, self._unknown = low, high, unknown
        super().__init__(f"a tensor {_shown(shape)} of {_plain(dtype)}", self._fits)

    def _fits(self, value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and value.dtype == self._dtype
            and value.ndim == len(self._shape)
            and all(wanted in (None, there) for wanted, there in zip(self._shape, value.shape, strict=True))
        )

    def __call__(self, value: Any, place: str = "") -> None:
        if not self._fits(value):
            found = f"a tensor {_shown(value.shape)} of {_plain(value.dtype)}" if _is_tensor(value) else brief(value)
            raise SchemaError(f"{place} is {found}, not {self.wanted}")
        if self._unknown:
            value = value[~value.isnan()]
        if value.numel() == 0:
            return
        for extreme in torch.aminmax(value):
            if not self._low <= (number := extreme.item()) <= self._high:
                raise SchemaError(f"{place} holds {number:g}, where {self._low:g} to {self._high:g} is possible")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _shown(shape: Iterable[int | None]) -> str:
    return f"({', '.join('any' if length is None else str(length) for length in shape)})"


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _printable(most: int) -> Check:
    return Check(
        f"text of at most {most} characters that can be printed",
        lambda value: isinstance(value, str) and len(value) <= most and value.isprintable(),
    )


_PHASES = ("predictor", "generator")
_MOST_CLASSES = 1000
# What the other checks go by. `Config` knows what settings can be, and quotes what they are.
_ENTRY = Check(
    "a number or text",
    lambda value: isinstance(value, float) or whole(-_MOST, _MOST).fits(value) or _printable(250).fits(value),
)
_SETTING = Check(
    "a number, names, or text of at most 4096 characters that can be printed",
    lambda value: (
        isinstance(value, (bool, float))
        or whole(-_MOST, _MOST).fits(value)
        or _printable(4096).fits(value)
        or (isinstance(value, (list, tuple)) and len(value) <= _MOST_CLASSES and all(map(_ENTRY.fits, value)))
    ),
)
_HEAD = entries(
    {
        "config": mapping(_SETTING, _printable(100)),
        "phase": text(*_PHASES),
        "epoch": whole(0, _MOST),
        "networks": mapping(anything()),
        "population": entries({"classes": tensor(torch.int64, (None,), 0, _MOST_CLASSES - 1)}),
        "provenance": entries({"count": whole(1, _MOST)}),
    }
)


def _drawing(
    state: dict[str, Any], config: Config, networks: Mapping[str, nn.Module], goes_on: bool
) -> dict[str, Check]:
    """Return the checks of what drawing and judging take."""
    count, epoch, num_attributes = state["provenance"]["count"], state["epoch"], len(config.attributes)
    average = weights_of(networks["generator"], {"num_averaged": tensor(torch.float32, (), 0, _MOST)})
    if not goes_on:
        average = either(exactly(None), average)
    elif not config.ema_decay:
        average = exactly(None)
    galaxies = state["population"]["classes"].shape[0]
    most = LARGEST_VALUE if config.attribute_definitions else _LARGEST_VALUE
    values = tensor(torch.float32, (galaxies, num_attributes), -most, most, unknown=True)
    return {
        "config": anything(),
        "phase": anything(),
        "epoch": whole(0, config.epochs if state["phase"] == "generator" else config.pretrain_epochs),
        # An epoch has a step, and a step takes a galaxy of its own.
        "step": whole(epoch, (epoch + 1) * count),
        "networks": entries({name: weights_of(network) for name, network in networks.items()}, others=False),
        "ema": average,
        "attributes": items(
            entries(
                {"name": text(), "unit": text(), "low": number(), "high": number(), "raw": flag()},
                {"r2": number(high=1)},
            ),
            num_attributes,
            num_attributes,
        ),
        "population": entries(
            {"classes": tensor(torch.int64, (max(1, galaxies),), 0, len(config.classes) - 1), "values": values},
            {"psfs": tensor(torch.float32, (config.num_bands, None, None), -1, 1)},  # of flux, see `usual_psfs`
            others=False,
        ),
        "provenance": entries(
            {
                "source": either(exactly(None), text(most=10_000)),
                "count": anything(),
                "sha256": mapping(_printable(128), _printable(128)),
            },
            # Runs of before have neither, and those that started anew no start.
            {
                "value_limits": mapping(items(number(), 2, 2)),
                "started_from": entries(
                    dict.fromkeys(("run", "file", "sha256", "taken_over"), _printable(10_000)), others=False
                ),
            },
        ),
    }


def weights_of(network: nn.Module, more: Mapping[str, Check] | None = None) -> Check:
    """Accept the tensors by name of a network like this one, which may be `Unfilled`, and `more` beside them."""
    checks = dict(more or {})
    for name, value in network.state_dict().items():
        least = _LEAST.get(name.rpartition(".")[2], -_LARGEST_WEIGHT)
        checks[name] = tensor(value.dtype, value.shape, least)
    return entries(checks, others=False)


def _training(state: dict[str, Any], config: Config, networks: Mapping[str, nn.Module]) -> dict[str, Check]:
    """Return the checks of what going on takes besides."""
    of_each = dict.fromkeys(networks)
    recovery = entries(
        {"part": tensor(torch.float32, (), _LEAST_PART, 1), "in_a_row": tensor(torch.float32, (), 0, _MOST)},
        others=False,
    )
    level = Check(
        "a level and how often it was seen",
        lambda value: isinstance(value, (list, tuple)) and len(value) == 2,
        lambda value, place: (
            number(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)(value[0], f"{place}[0]"),
            whole(0, _MOST)(value[1], f"{place}[1]"),
        )[0],
    )
    health = {
        "bad_in_a_row": whole(0, _MOST),
        "parts": entries({name: number(_LEAST_PART, 1) for name in of_each}, others=False),
        "norm_levels": mapping(level),
    }
    checks = {
        "optimizers": entries({name: _moments(network) for name, network in networks.items()}, others=False),
        "claims": tensor(torch.float32, (len(config.attributes),), 0, 1),
        "recovery": entries(dict.fromkeys(of_each, recovery), others=False),
        "random": _random(),
        "batches": _batches(config, state["provenance"]["count"]),
        "metrics": items(_record()),
        "warnings": items(text(most=1000)),
        "skipped": whole(0, _MOST),
        "health": entries(health, others=False),
        "meters": entries({"interval": _meters(), "epoch": _meters()}, others=False),
    }
    if not config.diffusion and config.augment_discriminator != "none":
        chance, sign = tensor(torch.float32, (), 0, 1), tensor(torch.float32, (), -1, 1)
        checks["augmentation"] = entries({"probability": chance, "mean_sign": sign}, others=False)
    if config.average_snapshots:
        checks["power_averages"] = _power_averages(networks["generator"])
    if config.perceptual_weight and config.perceptual == "vgg16":
        checks["vgg_sha256"] = _printable(64)
    return checks


def _power_averages(network: nn.Module) -> Check:
    """Return the check of the averages that forget by a power of time."""
    checks: dict[str, Check] = {"num_averaged": tensor(torch.float32, (), 0, _MOST)}
    for name, value in averaged_parts(network).items():
        for k in range(len(KEPT_LENGTHS)):
            checks[f"{k}.{name}"] = tensor(value.dtype, value.shape)
    return entries(checks, others=False)


def _moments(network: nn.Module) -> Check:
    """Return the check of what Adam knows of a network: of each parameter by its place, or before a step of none."""
    shapes = [parameter.shape for parameter in network.parameters()]
    by_place: dict[Any, Check] = {
        place: entries(
            {
                "step": tensor(torch.float32, (), 0, _MOST),
                "exp_avg": tensor(torch.float32, shape),
                "exp_avg_sq": tensor(torch.float32, shape, 0, _LARGEST_WEIGHT**2),
            },
            others=False,
        )
        for place, shape in enumerate(shapes)
    }
    return either(exactly({}), entries(by_place, others=False))


def _random() -> Check:
    """Return the check of the states of all random generators."""

    def inner(value: Any, place: str) -> None:
        by_device = {"cpu": _generator(), "cuda": _CUDA_GENERATOR, "mps": tensor(torch.uint8, (None,), 0, 255)}
        text(*by_device)(value.get("noise_device"), f"{place}.noise_device")
        required = {"cpu": _generator(), "noise": by_device[value["noise_device"]], "noise_device": anything()}
        entries(required, {"cuda": by_device["cuda"], "mps": by_device["mps"]}, others=False)(value, place)

    return Check("a mapping", lambda value: isinstance(value, dict), inner)


def _generator() -> Check:
    """Accept what a random generator on the CPU can go on from."""

    def fits(value: Any) -> bool:
        if not _is_tensor(value) or value.ndim != 1:
            return False
        try:
            torch.Generator().set_state(value)
        except (RuntimeError, TypeError):
            return False
        return True

    return Check("the state of a random generator", fits)


# A seed and an offset, which counts in fours.
_CUDA_GENERATOR = Check(
    "the state of a random generator on CUDA",
    lambda value: (
        _is_tensor(value)
        and value.dtype == torch.uint8
        and value.shape == (16,)
        and value.clone().view(torch.int64)[1] % 4 == 0
    ),
)


def _batches(config: Config, count: int) -> Check:
    """Return the check of where in an epoch the batches are."""

    def inner(value: Any, place: str) -> None:
        order = tensor(torch.int64, (None,), 0, count - 1)
        entries({"order": order})(value, place)
        length = len(value["order"])
        turns = tensor(torch.uint8, (length if config.augment else 0,), 0, 7)
        entries(
            {"generator": _generator(), "order": anything(), "turns": turns, "drawn": whole(0, length)}, others=False
        )(value, place)

    return Check("a mapping", lambda value: isinstance(value, dict), inner)


def _record() -> Check:
    """Return the check of what is remembered of an epoch or a test: names and numbers, which need not be finite."""
    named = {"kind": text(most=100), "phase": text(*_PHASES), "epoch": whole(0, _MOST)}
    real = Check("a number", lambda value: isinstance(value, (int, float)) and not isinstance(value, bool))

    def inner(value: Any, place: str) -> None:
        entries(named)(value, place)
        mapping(real)({name: entry for name, entry in value.items() if name not in named}, place)

    return Check("a mapping", lambda value: isinstance(value, dict), inner)


def _meters() -> Check:
    """Return the check of running sums, those of before terms were saved by name included."""

    def inner(value: Any, place: str) -> None:
        named = "names" in value or "errors" in value
        names = {"names": items(text(most=1000)), "errors": items(text(most=1000))} if named else {}
        sums = tensor(torch.float32, (None,), unknown=True)
        first_bad = tensor(torch.float32, (None,), 0, _MOST)
        entries({"sums": sums, "first_bad": first_bad, "steps": whole(0, _MOST), **names}, others=False)(value, place)
        terms, length = len(value["first_bad"]), len(value["sums"])
        if named:
            terms = len(value["names"])
            tensor(torch.float32, (terms,))(value["first_bad"], f"{place}.first_bad")
            length = terms + 2 * len(value["errors"]) + 2
            tensor(torch.float32, (length,), unknown=True)(value["sums"], f"{place}.sums")
        if length < terms + 2:
            raise SchemaError(f"{place}.sums is shorter than its terms are many")
        # A term of which nothing was known has no mean; errors and counts begin at zero.
        tensor(torch.float32, (length - terms,), 0)(value["sums"][terms:], f"{place}.sums[{terms}:]")

    return Check("a mapping", lambda value: isinstance(value, dict), inner)
