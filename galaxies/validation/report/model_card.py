"""The card of a released generator: what it was made of, and what it can and cannot do, in the run's own numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from config_physics import MORPHOLOGIES, Config, attribute_table
from galaxies.common.durable_files import whole_file
from galaxies.common.errors import UserError
from galaxies.storage.metrics_log import read_metrics
from galaxies.validation.report.figures import figures
from galaxies.validation.targets import table, verdicts

_NOT_RECORDED = "not recorded by this run"


def read_report(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Read the report (a folder or its JSON file) of a checkpoint.

    Raises
    ------
    UserError
        If there is none, or it is of another run or step.
    """
    path = path if path.suffix == ".json" else path / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        of = report["checkpoint"]["run"], report["checkpoint"]["step"]
    except OSError:
        raise UserError(f"there is no {path}: make it with evaluate.py report") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no report of this release: make it again with evaluate.py report") from None
    if of != (state["config"]["run"], state["step"]):
        raise UserError(f"{path} is about step {of[1]} of run {of[0]}, and the checkpoint is another")
    return report


def training_facts(checkpoint: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return what the metrics beside a checkpoint say of the training.

    Returns
    -------
    dict
        ``minutes`` of each phase, ``steps`` of the second, ``images_per_step``, and ``machine``, as `hardware.describe`
        gave it, None where the run did not record it.
    """
    path = checkpoint.parent / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{path} is not there: a card needs the records of the run")
    batch = state["config"]["batch_size"]  # of a rank
    seconds, before = {"predictor": 0.0, "generator": 0.0}, {"predictor": 0, "generator": 0}
    machine, ranks = None, 1
    for record in read_metrics(path):
        phase = record["phase"]
        if record["kind"] == "start":
            machine, ranks = record["machine"], record["ranks"]
        if record["kind"] != "train" or (phase == "generator" and record["step"] > state["step"]):
            continue
        seconds[phase] += (record["step"] - before[phase]) * batch * ranks / record["images_per_s"]
        before[phase] = record["step"]
    minutes = {phase: round(value / 60, 1) for phase, value in seconds.items()}
    return {"minutes": minutes, "steps": before["generator"], "images_per_step": batch * ranks, "machine": machine}


def _grain_words(config: dict[str, Any]) -> str:
    """Say where the report meets what it has been made to meet."""
    if config["diffusion"] or not config["pixel_noise"]:
        return ""
    return (
        " The grain of the sky is set so that\nthe report's instruments for noise read on it what they read on the "
        "training images; they are no witnesses for it."
    )


def write_card(
    path: Path,
    state: dict[str, Any],
    drawn_by: str,
    facts: dict[str, Any],
    manifest: dict[str, Any],
    report: dict[str, Any],
    size: int,
) -> None:
    """Write the card as Markdown.

    Parameters
    ----------
    path : Path
    state : dict
        The run's checkpoint.
    drawn_by : str
        `GalaxySampler.describe()`.
    facts : dict
        As `training_facts`, with ``precision``, ``half_precision_difference`` and ``credit``.
    manifest : dict
        Of the dataset.
    report : dict
        The validation report.
    size : int
        Bytes of the weights.
    """
    config, machine = state["config"], facts["machine"] or {}
    train = manifest["counts"]["train"]
    family = "diffusion model" if config["diffusion"] else "conditional GAN"
    changed = [
        f"`{setting.name}` {config[setting.name]}"
        for setting in dataclasses.fields(Config)
        if setting.name not in ("run", "data", "device", "attributes")
        and setting.name in config
        and config[setting.name] != getattr(Config, setting.name)
    ]
    attributes = "\n".join(
        f"- `{a.name}`: {a.description}{f' [{a.unit}]' if a.unit else ''}"
        for a in attribute_table(tuple(config["attributes"]))
    )
    difference = facts["half_precision_difference"]
    numbers = "\n".join(
        f"| {name} | {'–' if value is None else f'{value:.4g}'} |" for name, value in figures(report).items()
    )
    counts = ", ".join(f"{train.get(m.name, 0):,} {m.label.lower()}" for m in MORPHOLOGIES)
    hardware = f"{machine['device']}, {machine['cores']} cores, torch {machine['torch']}" if machine else _NOT_RECORDED
    compared, witness = report["counts"], "was" if report["photometry_was_trained_on"] else "was not"
    text = f"""# {config["run"]}: a {family} of galaxies

Draws galaxies of a wanted morphology with wanted attributes, {config["image_size"]} pixels a side. Weights of
generator and predictor: {size / 1e6:.2f} MB, {facts["precision"]}; drawn by {drawn_by}. Half precision changes
99.9 % of the values by at most {difference["most"]:g} of 255 grey levels ({difference["mean"]:.3f} on average).

![Sample sheet: a row for each class, then one sweep for each attribute](samples.png)

## Attributes

{attributes}

## Data and credit

{manifest["count"]:,} galaxies, of which {sum(train.get(m.name, 0) for m in MORPHOLOGIES):,} to train on: {counts}.
Credit: {facts["credit"]}. sha256 of the images: `{manifest["sha256"]["images.npy"]}`.

## Training

Recipe `{config["recipe"]}`, different from its defaults in: {", ".join(changed) or "nothing"}. Epoch {state["epoch"]},
{facts["steps"]:,} steps of {facts["images_per_step"]} images; {facts["minutes"]["predictor"]:g} minutes for the physics
predictor and {facts["minutes"]["generator"]:g} for the generator. Machine: {hardware}. Commit:
{machine.get("commit") or _NOT_RECORDED}.

## Validation

{compared["test"]} galaxies with requests like the test split and {compared["uniform"]} uniform ones, against
{compared["real"]} real test galaxies (`evaluate.py report`). `/ floor` is a multiple of the distance of real from real
galaxies. Photometry {witness} part of the training's loss; the judge never is.{_grain_words(config)}

What this project aims at:

{table(verdicts(report))}

All figures that runs are compared by:

| figure | value |
|---|---:|
{numbers}

## Limits

Brightness and size are of the picture: SDSS composites are asinh-stretched, and Galaxy Zoo scales each cutout to its
galaxy. What no picture tells, such as a redshift, is asked for in vain. A request outside the range that real galaxies
of the class have is drawn with a warning, and is an extrapolation.
"""
    with whole_file(path) as file:
        file.write(text.encode())
