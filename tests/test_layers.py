"""The shape of the code base: imports point down, and nothing slow or foreign is imported where it is not needed."""

from __future__ import annotations

import ast
import subprocess
import sys

from conftest import ROOT

LAYERS = (
    {"setting_rules"},
    {"galaxy_properties"},
    {
        "bounded_cache",
        "config_physics",
        "cores",
        "cosmology",
        "diffusion_model",
        "durable_files",
        "encounter",
        "galaxy_structure",
        "hardware",
        "image_queue",
        "image_store",
        "mock_votes",
        "philox",
        "progress",
        "resampling",
        "sersic",
        "sky_grain",
        "source_mask",
        "style_network",
        "thin_conv",
        "web_security",
        "weight_average",
    },
    {
        "discriminator_augmentation",
        "galaxy_frame",
        "http_download",
        "morphology_statistics",
        "perceptual_loss",
        "ranks",
        "real_population",
        "recipes",
        "residual_gan",
        "untrusted_files",
    },
    {
        "command_line",
        "cutouts",
        "dataset_writer",
        "download",
        "duplicates",
        "galaxy_light",
        "galaxy_queries",
        "galaxy_zoo",
        "gan_model",
        "http_server",
        "independent_photometry",
        "meters",
        "metrics",
        "photometry",
        "picture_files",
        "pictures",
        "report_texts",
        "targets",
    },
    {
        "checkpoint",
        "dataset",
        "distances",
        "engine",
        "grain_measurement",
        "label_table",
        "measurements",
        "physics_model",
        "requested_galaxies",
        "sky_field",
    },
    {
        "feature_spaces",
        "fidelity",
        "join_datasets",
        "photometric_guidance",
        "population",
        "real_or_mock",
        "release",
        "report_pages",
        "report_plots",
        "run_folder",
        "script_runs",
    },
    {"diffusion_sampling", "simulation"},
    {"sampling"},
    {"control", "generated_galaxies", "learner", "mock_survey", "monitoring", "served_models"},
    {
        "catalogue_shards",
        "diffusion_learner",
        "galaxy_service",
        "gan_learner",
        "model_card",
        "prepare_data",
        "set_comparison",
        "stepping",
    },
    {"galaxy_routes", "judge", "training"},
    {"app", "augmentation", "galaxy", "generate_from_checkpoint", "guidance_effect", "release_checkpoint"},
    {"evaluation", "resume_training", "train_release"},
    {"evaluate"},
)
SCIENCE = ("astropy", "judge", "matplotlib", "photutils", "scipy", "sklearn", "statmorph", "torchvision")
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def imports(path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names


def test_every_file_has_a_layer():
    assert {path.stem for path in ROOT.glob("*.py")} == set(LAYER)


def test_imports_point_down():
    for path in ROOT.glob("*.py"):
        for name in imports(path) & set(LAYER):
            assert LAYER[name] < LAYER[path.stem], f"{path.name} imports {name}"


def test_training_never_sees_the_judge():
    # Not by any chain of imports either: a judge that a generator was trained to please is none.
    code = "import sys, galaxy, training, resume_training, learner; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "training" in loaded.stdout.split()
    assert "judge" not in loaded.stdout.split()
    assert LAYER["judge"] >= LAYER["training"]  # so that test_imports_point_down forbids it for ever


def test_importing_a_script_does_nothing():
    for script in ("app", "galaxy", "resume_training", "generate_from_checkpoint", "prepare_data", "evaluate"):
        result = subprocess.run([sys.executable, "-c", f"import {script}"], cwd=ROOT, capture_output=True, timeout=60)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_training_and_generation_need_no_science_libraries():
    code = "import sys, training, generate_from_checkpoint, sampling; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    assert not {*SCIENCE, "flask", "waitress"} & set(loaded.stdout.split())


def test_the_server_loads_what_it_needs():
    code = "import sys, app; print(*sys.modules); from http_server import bind; app.create_app(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    imported, served = map(str.split, loaded.stdout.splitlines())
    assert not {"torch", "numpy", "flask", "waitress"} & set(imported)
    assert {"torch", "flask", "waitress"} <= set(served)
    assert not {*SCIENCE, "training"} & set(served)
