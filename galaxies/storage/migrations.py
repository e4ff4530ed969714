"""What was stored before, brought to the format of today: one table of steps, for checkpoints and for releases.

A checkpoint or a release carries the format version that it was written with; version 1 is that of commit e82a0c7, and
content without a version counts as such. Reading one takes it through `MIGRATIONS` step by step, so none is ever
refused because it is older. One that is newer is refused in a sentence.

A step is a function from the plain content of version n to that of version n + 1. It sees what `load_checkpoint` or
`read_release` read (``config``, ``networks``, ``ema``, ``population``, ...; a release has no ``optimizers``, ``meters``
and the like), and returns a changed copy. Whoever changes what is stored writes one:

1. Raise `FORMAT_VERSION` to n + 1, unless nobody can have the present one yet, since it is on no shared branch:
   then lengthen its step.
2. Write the step ``_to_<n + 1>`` out of the functions below, and enter it in `MIGRATIONS` under n. Write values out,
   and never take them from `Config` or another table of today: tomorrow's differ, and yesterday's files do not.
   - A new setting: `add_setting` with what happened before it existed, which need not be its default.
   - A setting that goes: `drop_setting`, with the values at which it did nothing.
   - A tensor of a network under another name: `rename_tensors`. The order of a network's parameters may not change,
     since Adam's moments are kept by number.
   - Anything else, such as a tensor of another shape: plain Python on the content.
3. Add a release or a run of version n to tests/storage, as e82a0c7/ is for version 1.

What no step can mend is what the networks were trained to mean: an attribute whose unit or range changes is another
attribute, and gets another name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from galaxies.common.errors import UserError

FORMAT_VERSION = 11

Content = dict[str, Any]


def migrate(content: Content, version: Any) -> Content:
    """Bring a run's or a release's content to `FORMAT_VERSION`.

    Parameters
    ----------
    content : dict
        Is left as it is.
    version : int
        That it was written with; see `check_version`.

    Returns
    -------
    dict
        With its ``format_version``.

    Raises
    ------
    UserError
        If it depends on something that this program no longer has.
    KeyError, TypeError, AttributeError
        If it is no such content.
    """
    while version < FORMAT_VERSION:
        content = MIGRATIONS[version](content)
        version += 1
    return {**content, "format_version": version}


def check_version(version: Any, name: object) -> bool:
    """Tell whether `version` is one that `migrate` can start from.

    Raises
    ------
    UserError
        If it is that of a newer program; `name` says what is read.
    """
    if type(version) is int and version > FORMAT_VERSION:
        raise UserError(
            f"{name} has format version {version} and this program reads {FORMAT_VERSION} and older: "
            "it is newer than this program, so use a newer one"
        )
    return type(version) is int and version >= 1


def add_setting(content: Content, name: str, value: Any) -> Content:
    """Give a setting the value of what was done before it existed.

    Raises
    ------
    KeyError
        If it exists: then the content is not of the version that it says.
    """
    if name in content["config"]:
        raise KeyError(name)
    return {**content, "config": {**content["config"], name: value}}


def drop_setting(content: Content, name: str, *harmless: Any) -> Content:
    """Leave out a setting that has gone.

    Raises
    ------
    UserError
        If its value is not one of the `harmless` ones, with which it did nothing.
    """
    config = dict(content["config"])
    if (value := config.pop(name)) not in harmless:
        raise UserError(f"it was made with {name} {value!r}, which this program no longer has: use an older one")
    return {**content, "config": config}


def rename_tensors(content: Content, renamed: Mapping[str, Mapping[str, str]]) -> Content:
    """Give tensors of networks other names.

    Parameters
    ----------
    content : dict
    renamed : dict of dict
        By network (``generator``, ``discriminator``, ``predictor``): regular expressions that whole old names match,
        and the new names, as for `re.sub`. The average takes part in what is the generator's. Those that are not
        there are passed over.
    """

    def new_names(network: str, tensors: Content) -> Content:
        return {_renamed(name, renamed.get(network, {})): value for name, value in tensors.items()}

    networks = {network: new_names(network, tensors) for network, tensors in content["networks"].items()}
    average = content["ema"]
    return {**content, "networks": networks, "ema": average and new_names("generator", average)}


def _renamed(name: str, patterns: Mapping[str, str]) -> str:
    for pattern, new in patterns.items():
        if found := re.fullmatch(pattern, name):
            return found.expand(new)
    return name


_TENSORS_RENAMED_IN_2 = {
    "generator": {  # the grain of the sky
        r"(.*\.)?grain\.lean": r"\1grain.skewness",
        r"(.*\.)?grain\.toe": r"\1grain.soft_black",
        r"(.*\.)?grain\.traits": r"\1grain.grain_parameters",
    }
}


def _to_2(content: Content) -> Content:
    return rename_tensors(content, _TENSORS_RENAMED_IN_2)


def _to_3(content: Content) -> Content:
    for name, value in (("compile", "off"), ("warmup", 0), ("learning_rate_width", 0), ("readable_only", False)):
        content = add_setting(content, name, value)
    if "optimizers" not in content:  # a release
        return content
    whole = {"part": torch.ones(()), "in_a_row": torch.zeros(())}
    return {
        **content,
        "claims": torch.ones(len(content["config"]["attributes"])),
        "recovery": {name: dict(whole) for name in content["networks"]},
        "health": {"bad_in_a_row": 0, "parts": dict.fromkeys(content["networks"], 1.0), "norm_levels": {}},
    }


def _to_4(content: Content) -> Content:
    for name, value in (
        ("kind", "display"),
        ("bands", ["r", "g", "b"]),
        ("classes", ["spiral", "elliptical", "merger", "edge-on"]),
        ("softening", []),
        ("pixel_scale", 0.0),
        ("psf_fwhm", []),
        ("attribute_ranges", []),
    ):
        content = add_setting(content, name, value)
    return content


def _to_5(content: Content) -> Content:
    old = content["config"]
    for name, value in (
        ("telescope", "off" if old["kind"] == "flux" and not old["diffusion"] else "on"),
        ("oversampling", 2),
        ("wavelengths", []),
        ("photons", []),
        ("psf_profile", "kolmogorov"),
        ("psf_pixels", 0),
    ):
        content = add_setting(content, name, value)
    return content


def _to_6(content: Content) -> Content:
    # Up to here a diffusion model painted what telescopes show, whatever the setting said.
    old = content["config"]
    off = {"telescope": "off", "oversampling": 2} if old["kind"] == "flux" and old["diffusion"] else {}
    return {**content, "config": {**old, **off}}


def _to_7(content: Content) -> Content:
    return add_setting(content, "profiles", "coarse")


def _to_8(content: Content) -> Content:
    for name in ("class_labels", "class_descriptions", "attribute_definitions"):
        content = add_setting(content, name, [])
    return content


def _to_9(content: Content) -> Content:
    for name, value in (("soft_classes", False), ("free_requests", 0.0)):
        content = add_setting(content, name, value)
    return content


def _to_10(content: Content) -> Content:
    return add_setting(content, "detail_stages", False)


def _to_11(content: Content) -> Content:
    return add_setting(content, "average_snapshots", 0)


MIGRATIONS: dict[int, Callable[[Content], Content]] = {
    **{1: _to_2, 2: _to_3, 3: _to_4, 4: _to_5},
    **{5: _to_6, 6: _to_7, 7: _to_8, 8: _to_9, 9: _to_10, 10: _to_11},
}
