"""The card of a released generator: what it was made of, and what it can and cannot do, in the run's own numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from config_physics import Config
from galaxies.common.durable_files import whole_file
from galaxies.common.errors import UserError
from galaxies.common.reading import MissingError
from galaxies.storage.metrics_log import read_metrics
from galaxies.validation.report.contents import Report
from galaxies.validation.report.report_file import read_report
from galaxies.validation.report.templates import render
from galaxies.validation.targets import table, verdicts

_NOT_RECORDED = "not recorded by this run"


def report_about(run: Path, state: dict[str, Any]) -> Report:
    """Read the report (a folder or its JSON file) of a checkpoint.

    Raises
    ------
    UserError
        If there is none, or it is of another run or step.
    """
    report = read_report(run)
    of = report.checkpoint
    if (of.run, of.step) != (state["config"]["run"], state["step"]):
        raise UserError(f"{run} is about step {of.step} of run {of.run}, and the checkpoint is another")
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
    try:
        records = read_metrics(path)
    except MissingError:
        raise UserError(f"{path} is not there: a card needs the records of the run") from None
    batch = state["config"]["batch_size"]  # of a rank
    seconds, before = {"predictor": 0.0, "generator": 0.0}, {"predictor": 0, "generator": 0}
    machine, ranks = None, 1
    for record in records:
        phase = record["phase"]
        if record["kind"] == "start":
            machine, ranks = record["machine"], record["ranks"]
        if record["kind"] != "train" or (phase == "generator" and record["step"] > state["step"]):
            continue
        if (speed := record.get("images_per_s")) and speed > 0:
            seconds[phase] += (record["step"] - before[phase]) * batch * ranks / speed
        before[phase] = record["step"]
    minutes = {phase: round(value / 60, 1) for phase, value in seconds.items()}
    return {"minutes": minutes, "steps": before["generator"], "images_per_step": batch * ranks, "machine": machine}


def write_card(
    path: Path,
    state: dict[str, Any],
    drawn_by: str,
    facts: dict[str, Any],
    manifest: dict[str, Any],
    report: Report,
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
    report : Report
        The validation report.
    size : int
        Bytes of the weights.
    """
    from markupsafe import Markup  # comes with Jinja2

    config, train = state["config"], manifest["counts"]["train"]
    changed = {
        setting.name: config[setting.name]
        for setting in dataclasses.fields(Config)
        if setting.name not in ("run", "recipe", "data", "device", "attributes")
        and setting.name in config
        and _plain(config[setting.name]) != _plain(getattr(Config, setting.name))
    }
    text = render(
        "card.md",
        config=config,
        family="diffusion model" if config["diffusion"] else "conditional GAN",
        changed=changed,
        attributes=report.checkpoint.rows(),
        epoch=state["epoch"],
        drawn_by=drawn_by,
        facts=facts,
        machine={"commit": None, **facts["machine"]} if facts["machine"] else None,
        not_recorded=_NOT_RECORDED,
        started_from=state["provenance"].get("started_from"),
        average_length=state["provenance"].get("average_length"),
        manifest=manifest,
        counts={m.label: train.get(m.name, 0) for m in report.data.morphologies()},
        report=report,
        # The report's instruments for noise are what it has been made to meet.
        grain_was_fitted=not config["diffusion"] and config["pixel_noise"],
        targets=Markup(table(verdicts(report))),  # names of attributes and spaces, and numbers
        megabytes=size / 1e6,
    )
    with whole_file(path) as file:
        file.write(text.encode())


def _plain(value: Any) -> Any:
    """Return a setting as a checkpoint has it: lists for tuples."""
    return list(value) if isinstance(value, tuple) else value
