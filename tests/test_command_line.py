"""Options made from the settings, and one-sentence errors."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from config_physics import PAPER_ATTRIBUTES, Config
from galaxies import command_line
from galaxies.command_line import Parser, add_config_options, config_from_options, given_settings
from galaxies.common.errors import UserError
from galaxies.common.signals import StopSignals
from tests.conftest import ROOT


def parse(*argv: str):
    parser = Parser()
    add_config_options(parser)
    return parser.parse_args(list(argv))


def test_every_setting_but_those_of_the_data_has_an_option():
    parser = Parser()
    add_config_options(parser)
    flags = {f for action in parser._actions for f in action.option_strings}
    of_data = {"image_size", "kind", "bands", "classes", "softening", "pixel_scale", "psf_fwhm", "attribute_ranges"}
    of_data |= {"wavelengths", "photons", "psf_profile", "psf_pixels", "class_labels", "class_descriptions"}
    of_data.add("attribute_definitions")
    assert not {f"--{name.replace('_', '-')}" for name in of_data} & flags
    settings = {s.name for s in dataclasses.fields(Config)} - of_data
    assert {f"--{name.replace('_', '-')}" for name in settings} <= flags


def test_no_option_gives_the_defaults():
    assert config_from_options(parse()) == Config()


def test_options_override_the_recipe_and_the_recipe_overrides_fallbacks():
    config = config_from_options(
        parse("--recipe", "paper", "--ema-decay", "0.5"), ema_decay=0.9, augment=True, log_every=8
    )
    assert (config.ema_decay, config.augment, config.log_every) == (0.5, False, 8)
    assert config.attributes == PAPER_ATTRIBUTES


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_minutes_are_a_positive_number(text):
    parser = Parser()
    command_line.add_time_option(parser)
    assert parser.parse_args([]).stop_at == math.inf
    assert parser.parse_args(["--minutes", "0.5"]).stop_at == pytest.approx(time.monotonic() + 30, abs=5)
    with pytest.raises(UserError, match="--minutes"):
        parser.parse_args(["--minutes", text])


def test_attributes_are_a_list():
    assert config_from_options(parse("--attributes", "size, color")).attributes == ("size", "color")


def test_only_what_was_given_is_reported():
    assert given_settings(parse("--epochs", "3", "--no-augment")) == {"epochs": 3, "augment": False}


@pytest.mark.parametrize("argv", [["--epochs", "many"], ["--epoch", "3"], ["--recipe", "best"], ["stray"]])
def test_a_wrong_option_is_one_sentence(argv):
    with pytest.raises(UserError, match="--help lists the options"):
        parse(*argv)


@pytest.mark.parametrize(
    "error, status, text",
    [
        (UserError("it is\nwrong"), 2, "error: it is wrong"),
        (OSError(28, "No space left"), 2, "error: the output could not be written: No space left (make room"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "error: there is not enough memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            2,
            "error: the GPU has not enough memory: close",
        ),
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure"),
            2,
            "error: the GPU failed (CUDA",
        ),
    ],
)
def test_exit_status_and_message(error, status, text, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["folder/script.py"])

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as caught:
        command_line.run_script(main)
    assert caught.value.code == status
    assert f"script.py: {text}" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shape"):
        command_line.run_script(lambda argv: torch.ones(3).view(2, 2))


def test_success_is_status_0(monkeypatch):
    with pytest.raises(SystemExit) as caught:
        command_line.run_script(lambda argv: None)
    assert caught.value.code == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows delivers no SIGTERM to a handler")
def test_stop_signals_call_the_request_and_are_put_back():
    calls, before = [], signal.getsignal(signal.SIGTERM)
    with StopSignals(lambda: calls.append(1)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert calls == [1, 1]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--solver-steps", "10"], "solver_steps is 10: it is a setting of the diffusion model, and needs diffusion"),
        (["--no-stratified"], "stratified is False: it is a setting of the diffusion model"),
        (["--diffusion", "--generator", "resize"], "generator is 'resize': it is a setting of the GAN"),
        (["--diffusion", "--r1-weight", "1"], "r1_weight is 1.0: it is a setting of the GAN"),
    ],
)
def test_settings_of_the_other_model_are_refused(options, sentence):
    parser = Parser()
    add_config_options(parser)
    with pytest.raises(UserError, match=sentence):
        config_from_options(parser.parse_args(options))


def test_an_error_that_ends_the_process_at_once_skips_what_would_crash():
    code = (
        "import atexit, os; from galaxies.command_line import run_script\n"
        "from galaxies.compute.ranks import LostRankError\n"
        "atexit.register(os.abort)\n"
        "def main(argv):\n    print('so far'); raise LostRankError('gone')\n"
        "run_script(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "so far\n")
    assert done.stderr.endswith("error: gone\n")


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("pass", 0, ""),
        ("raise UserError('no data')", 2, "-c: error: no data\n"),
        ("raise KeyboardInterrupt", 130, None),
    ],
)
@pytest.mark.parametrize("size", ["1", "2"])
def test_one_of_several_processes_ends_before_their_threads_can_abort_it(size, end, status, said):
    code = (
        "import atexit; from galaxies.command_line import run_script; from galaxies.common.errors import UserError\n"
        "atexit.register(print, 'torn down')\n"
        f"def main(argv):\n    print('so far', end=' '); {end}\n"
        "run_script(main)"
    )
    environment = {**os.environ, "WORLD_SIZE": size}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == status
    assert done.stdout.split() == ["so", "far", *(["torn", "down"] if size == "1" else [])]
    assert said is None or done.stderr == said


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX closes what is asked for")
@pytest.mark.parametrize(
    ("redirected", "status", "said"),
    [
        ("| true", 141, ""),
        ("2>&1 | true", 141, ""),
        ("> /dev/full", 2, "error: the output could not be written: No space left on device (make room on its disk)\n"),
        ("2> /dev/full > /dev/full", 2, ""),
        (">&-", 0, "to the end\n"),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
@pytest.mark.parametrize("count", [10, 20_000])
def test_output_that_nobody_takes(redirected, status, said, count):
    if not os.path.exists("/dev/full") and "full" in redirected:  # noqa: PTH110
        pytest.skip("only Linux has a device that is always full")
    work = f"[print('line', k) for k in range({count})], print('to the end', file=sys.stderr)"
    code = "from galaxies.command_line import run_script; import sys\n" + f"run_script(lambda argv: ({work}))"
    line = f'sleep 0; "$0" -c "$1" {redirected}; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status
    assert done.stderr.endswith(said) and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
