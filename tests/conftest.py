"""Shared fixtures: rendered galaxies, a small prepared dataset, a tiny trained run."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch loads: each core has a worker of its own

import functools
import gc
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from config_physics import MORPHOLOGY_NAMES, PHOTOMETRIC_ATTRIBUTES, Config
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure import photometry
from galaxies.storage.metrics_log import read_metrics
from galaxies.training import display
from galaxies.training import trainer as trainer_module
from galaxies.training.health import check_samples
from galaxies.training.trainer import Trainer
from tests import kill_jobs

ROOT = Path(__file__).resolve().parent.parent

# Options of a run that takes seconds.
TINY = ["--width", "4", "--latent-dim", "8", "--batch-size", "16", "--log-every", "2", "--seed", "3"]


# Settings of a run that is taken step by step.
SETTINGS = {"width": 4, "latent_dim": 8, "batch_size": 16, "log_every": 2, "pretrain_epochs": 1, "epochs": 1}

# Every option of the GAN at once, on the networks without batch normalisation.
MODERN = {
    "generator": "residual",
    "discriminator": "residual",
    "pixel_noise": True,
    "adversarial": "relativistic",
    "r2_weight": 0.2,
    "regression_weight": 1.0,
    "class_weight": 0.5,
    "augment_discriminator": "adaptive",
    "label_jitter": 0.05,
    "free_requests": 0.25,
    "perceptual_weight": 0.1,
    "average_snapshots": 2,
}


# Of the plugins of pytest that a machine has, those that have a say here, by the packages that they come with.
_PLUGINS = frozenset({"pytest-xdist", "hypothesis"})


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a parameter of bytes that are no text by its argument, for workers to find the same names.

    What was packed, or drawn by lot, while tests are collected differs from one process to the next: the head of a
    .gz file holds the second in which it was written.
    """
    is_text = not isinstance(val, bytes) or (val.isascii() and val.replace(b"\n", b" ").decode().isprintable())
    return None if is_text else argname


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Take all other plugins off, before they begin.

    Some warn beside pytest-xdist, and a warning is an error here; some change the order of tests, or their seeds.
    To use one: `PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python -m pytest -p xdist.plugin -p pytest_cov.plugin`.
    """
    for plugin, package in pluginmanager.list_plugin_distinfo():
        if package.metadata["name"].lower().replace("_", "-") not in _PLUGINS:
            pluginmanager.unregister(plugin)


def pytest_collection() -> None:
    """Spare full garbage collections while modules and thousands of tests come, of which nothing is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what is there from now on to no garbage collection: each full one would look through all of it again."""
    gc.freeze()
    gc.enable()


def needs_cuda(test):
    """Mark a test that only runs where there is a CUDA device: `-m cuda`, and `-k cuda`, find those."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    return pytest.mark.cuda(skip(test))


# What tests that try something many times have counted: {what: (tried, good)}, printed at the end of the session.
COUNTS: dict[str, tuple[int, int]] = {}


def pytest_terminal_summary(terminalreporter) -> None:
    if COUNTS:
        terminalreporter.section("counts")
    for what, (tried, good) in sorted(COUNTS.items()):
        terminalreporter.write_line(f"{what}: {tried} tried, {good} good")


@pytest.fixture
def count():
    """Count trials of something, by `count(what, good)`."""

    def add(what: str, good: bool = True) -> None:
        tried, well = COUNTS.get(what, (0, 0))
        COUNTS[what] = tried + 1, well + bool(good)

    return add


def records_of(folder: Path) -> list[dict]:
    """Return the records of a run's folder without what depends on the clock, and on how often it was started."""
    records = [record for record in read_metrics(folder / "metrics.jsonl") if record["kind"] != "start"]
    return [{key: value for key, value in record.items() if key != "images_per_s"} for record in records]


def tree_of(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder, by their relative names with '/'; links are followed."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def noting_threads(function, threads: list[int]):
    """Return a function that does the same, and notes on how many of torch's threads it was called."""

    def noted(*arguments, **options):
        threads.append(torch.get_num_threads())
        return function(*arguments, **options)

    return noted


def differences(first, second, path="state") -> list[str]:
    """Compare nested states bit for bit; return the paths where they differ."""
    if type(first) is not type(second):
        return [path]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [path]
        return [d for key in first for d in differences(first[key], second[key], f"{path}.{key}")]
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [path]
        return [d for k in range(len(first)) for d in differences(first[k], second[k], f"{path}[{k}]")]
    if isinstance(first, torch.Tensor):
        alike = (first.dtype, first.shape) == (second.dtype, second.shape)
        return [] if alike and first.numpy().tobytes() == second.numpy().tobytes() else [path]
    return [] if first == second else [path]


def render_galaxies(count: int, seed: int = 0, side: int = 64) -> tuple[np.ndarray, list[str]]:
    """Render exponential discs whose flattening and colour follow their class; two bodies for mergers.

    Returns images (count, 3, side, side) uint8 and class names.
    """
    rng = np.random.default_rng(seed)
    axis = np.arange(side) - (side - 1) / 2
    x, y = np.meshgrid(axis, axis)
    images, names = [], []
    for k in range(count):
        name = MORPHOLOGY_NAMES[k % 4]
        low, high = {"spiral": (0.5, 0.9), "elliptical": (0.6, 1.0), "merger": (0.5, 1.0), "edge-on": (0.15, 0.3)}[name]
        axis_ratio, angle = rng.uniform(low, high), rng.uniform(0, np.pi)
        scale, peak = rng.uniform(3, 6) * side / 64, rng.uniform(0.4, 0.8)
        light = np.zeros((side, side))
        bodies = [(0.0, 0.0)] if name != "merger" else [(0.0, 0.0), tuple(rng.uniform(5, 9, 2) * side / 64)]
        for dx, dy in bodies:
            u = (x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)
            v = -(x - dx) * np.sin(angle) + (y - dy) * np.cos(angle)
            light += np.exp(-np.hypot(u, v / axis_ratio) / scale)
        color = np.array([1.0, 0.85, 0.6] if name in ("elliptical", "edge-on") else [0.8, 0.9, 1.0])
        picture = 0.02 + peak * light * color[:, None, None] + rng.normal(0, 0.006, (3, side, side))
        images.append((picture.clip(0, 1) * 255).round().astype(np.uint8))
        names.append(name)
    return np.stack(images), names


def write_dataset(path: Path, count: int = 160, seed: int = 0, side: int = 64) -> Path:
    """Write rendered galaxies as a prepared dataset; a third of the redshifts is unknown."""
    images, names = render_galaxies(count, seed, side)
    measured = photometry.measure(torch.from_numpy(images).float() / 255)
    values = {name: measured.attribute(name).numpy() for name in PHOTOMETRIC_ATTRIBUTES}
    redshift = np.random.default_rng(seed).uniform(0.01, 0.2, count)
    values["redshift"] = np.where(np.arange(count) % 3 == 0, np.nan, redshift)
    with DatasetWriter(path, side, 0.5, {"source": "rendered for a test"}) as writer:
        writer.append(images, [f"58773000000000{seed:02d}{k:04d}" for k in range(count)], names, values)
    return path


def flux_galaxies(
    count: int, bands: tuple[str, ...], seed: int = 0, side: int = 64
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return round exponential galaxies (count, B, side, side) in nJy with noise, and their columns of the truth."""
    rng = np.random.default_rng(seed)
    magnitude = rng.uniform(18.5, 21.5, count)
    color = rng.uniform(0.2, 1.4, count)
    scale_px = rng.uniform(2.0, 6.0, count)
    radius = np.hypot(*(np.indices((side, side)) - (side - 1) / 2))
    values = {"redshift": 0.3 * color, "size_arcsec": 1.678 * 0.2 * scale_px, "ellipticity": np.zeros(count)}
    values["pixel_scale"] = np.full(count, 0.2)
    profile = np.exp(-radius / scale_px[:, None, None])
    profile /= profile.sum((1, 2), keepdims=True)
    planes = []
    for k, band in enumerate(bands):
        values[f"magnitude_{band}"] = magnitude - k * color
        values[f"noise_{band}"] = np.full(count, 20.0 * (k + 1)) * rng.uniform(0.9, 1.1, count)
        values[f"psf_fwhm_{band}"] = np.full(count, 0.8 - 0.05 * k)
        flux = 10 ** (-0.4 * (values[f"magnitude_{band}"] - 31.4))
        noise = values[f"noise_{band}"][:, None, None] * rng.standard_normal((count, side, side))
        planes.append(flux[:, None, None] * profile + noise)
    for first, second in itertools.pairwise(bands):
        values[f"color_{first}_{second}"] = values[f"magnitude_{first}"] - values[f"magnitude_{second}"]
    return np.stack(planes, 1).astype(np.float32), values


def write_flux_dataset(
    path: Path,
    count: int,
    bands: tuple[str, ...],
    classes: tuple[str, ...] = ("galaxy",),
    seed: int = 0,
    side: int = 64,
    psfs: bool = False,
    tell_noise: bool = True,
    tell_psf: bool = True,
) -> Path:
    """Write a dataset of `flux_galaxies`, classes in turn, with attributes magnitude, color, size and redshift."""
    images, values = flux_galaxies(count, bands, seed, side)
    if not tell_noise:
        values = {name: column for name, column in values.items() if not name.startswith("noise_")}
    if not tell_psf:
        values = {name: column for name, column in values.items() if not name.startswith("psf_fwhm_")}
    layout = DataLayout("flux", tuple(map(FluxBand.named, bands)), classes)
    radius = np.hypot(*(np.indices((15, 15)) - 7))
    psf = np.exp(-0.5 * (radius / 1.7) ** 2) / np.exp(-0.5 * (radius / 1.7) ** 2).sum()
    shared = np.broadcast_to(psf, (1, len(bands), 15, 15)).astype(np.float32) if psfs else None
    names = [classes[k % len(classes)] for k in range(count)]
    with DatasetWriter(path, side, 1.0, {"source": "test", "rule": "none"}, layout=layout) as writer:
        writer.append(images, [f"{seed}-{k}" for k in range(count)], names, values, shared)
    return path


def few_columns(sampler: GalaxySampler, title: str) -> Image.Image:
    """Draw a sample grid of two columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(display, "_GRID_COLUMNS", 2)
        return display.sample_grid(sampler, title)


@pytest.fixture(scope="session", autouse=True)
def _short_epoch_ends() -> Iterator[None]:
    """Draw no curves, and few galaxies, at the end of each epoch in this process; scripts' own processes draw all.

    That would be more than a third of the time of such trainings. How many there are is no part of what is trained.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "curves_picture", lambda charts, title: Image.new("RGB", (8, 8)))
        patch.setattr(trainer_module, "check_samples", functools.partial(check_samples, per_class=4))
        patch.setattr(trainer_module, "sample_grid", few_columns)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Let no file of this process wait until it is safe from a power cut; the processes that tests kill do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("prepared") / "rendered")


@pytest.fixture(scope="session")
def wide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with enough test galaxies for distances between sets; who would change it takes a copy."""
    return write_dataset(tmp_path_factory.mktemp("wide") / "real", 640, seed=1)


@pytest.fixture(scope="session")
def data(dataset_path: Path) -> PreparedDataset:
    return PreparedDataset.open(dataset_path)


def run_script(script: str, *options: object, cwd: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts as a user would: in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, options)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        **kwargs,
    )


def fork_script(script: str, *options: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Do as `run_script`, where there is fork without the seconds in which Python loads torch."""
    if os.name == "nt":
        return run_script(script, *options, cwd=cwd)
    with tempfile.TemporaryDirectory() as folder:
        output, errors = (Path(folder, name) for name in ("stdout", "stderr"))
        status = kill_jobs.run_to_end(kill_jobs.script, script, options, cwd, output, None, errors)
        texts = (path.read_text(encoding="utf-8") for path in (output, errors))
        return subprocess.CompletedProcess([script, *map(str, options)], status, *texts)


def make_trainer(data, tmp_path, **settings) -> Trainer:
    usual = {name: value for name, value in SETTINGS.items() if name != "latent_dim" or not settings.get("diffusion")}
    config = Config(**{**usual, "run": "r", "device": "cpu", **settings})
    return Trainer(config, data, tmp_path / "checkpoints" / "r", tmp_path / "samples" / "r")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset_path: Path) -> Path:
    """A working folder in which the run `tiny` has been trained: 2 + 2 epochs, a checkpoint each."""
    folder = tmp_path_factory.mktemp("work")
    options = ["--data", dataset_path, "--run", "tiny", "--pretrain-epochs", 2, "--epochs", 2, "--checkpoint-every", 1]
    result = fork_script("galaxy.py", *options, *TINY, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


class Oracle(torch.nn.Module):
    """A network that knows the image and gives the right output."""

    def __init__(self, process, x0):
        super().__init__()
        self.process, self.x0 = process, x0

    def forward(self, x_t, t, condition):
        t = (t * self.process.num_steps).round().long()
        x0 = self.x0.expand_as(x_t)
        if self.process.prediction == "noise":
            return self.process.predict_noise(x_t, t, x0)
        return self.process.target(x0, t, self.process.predict_noise(x_t, t, x0))


@pytest.fixture(params=[1, 3])
def threads(request):
    """Give torch one thread, then three."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a GAN and of a diffusion model that were never trained, and answer in milliseconds."""
    from benchmarks.serving import write_untrained

    folder = tmp_path_factory.mktemp("untrained")
    paths = {name: folder / name / "latest.pt" for name in ("gan", "diffusion")}
    write_untrained(paths["gan"], Config(width=4, latent_dim=8))
    small = {"width": 8, "unet_blocks": 1, "solver_steps": 2}
    write_untrained(paths["diffusion"], Config(diffusion=True, **small))
    return paths


@pytest.fixture(scope="session")
def client(untrained):
    """Ask the server of both models without a network between."""
    from galaxies.serving.application import create_app
    from galaxies.serving.models import load_models

    return create_app(load_models(list(untrained.values()), "cpu")).test_client()


@pytest.fixture
def server(monkeypatch):
    """Run the web server of file_server.py, reached directly."""
    from tests.file_server import serving  # here, since only few tests need pooch

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "GALAXY_ZOO_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server
