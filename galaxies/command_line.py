"""What the command lines share: options made from `Config`, one-sentence errors, exit statuses."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from config_physics import SOLVERS, Config
from galaxies.common.device_errors import device_failure
from galaxies.common.durable_files import reason
from galaxies.common.errors import UserError
from galaxies.common.parsing import whole_number
from galaxies.recipes import DIFFUSION_RECIPES, LIGHT_RECIPES, RECIPES

_NO_READER = 141  # what a shell shows of a process that a closed pipe has ended, 128 + SIGPIPE


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, and whose options are never abbreviated."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` instead of printing the whole usage."""
        raise UserError(f"{message} ({self.prog} --help lists the options)")


def add_config_options(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Add one option for each `Config` field, or for the named ones; a default is never written twice.

    An option that is not given leaves nothing in the namespace, so that a recipe or a checkpoint decides.
    """
    wanted = None if names is None else set(names)
    for setting in dataclasses.fields(Config):
        if setting.metadata.get("option") is False or (wanted is not None and setting.name not in wanted):
            continue
        flag = "--" + setting.name.replace("_", "-")
        default = ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default
        help_text = setting.metadata["help"] + ("" if default == "" else f" (default: {default})")
        kwargs: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS, "help": help_text}
        if isinstance(setting.default, bool):
            kwargs["action"] = "store_true" if setting.name == "diffusion" else argparse.BooleanOptionalAction
        elif isinstance(setting.default, tuple):
            kwargs |= {"type": _name_list, "metavar": "LIST"}
        else:
            kwargs |= {"type": type(setting.default), "metavar": _METAVARS.get(setting.name)}
            if "choices" in setting.metadata:
                kwargs |= {"choices": setting.metadata["choices"], "metavar": None}
            elif kwargs["metavar"] is None:
                kwargs["metavar"] = "N" if isinstance(setting.default, int) else "X"
        parser.add_argument(flag, **kwargs)


_METAVARS = {"data": "DIR", "run": "NAME", "device": "D", "vgg_weights": "FILE"}


def _name_list(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def given_settings(namespace: argparse.Namespace) -> dict[str, Any]:
    """Return the `Config` settings that the user gave on the command line."""
    return {s.name: getattr(namespace, s.name) for s in dataclasses.fields(Config) if hasattr(namespace, s.name)}


def config_from_options(
    namespace: argparse.Namespace, taken: Mapping[str, Any] | None = None, **fallbacks: Any
) -> Config:
    """Build the settings of a run: defaults, then `fallbacks`, then the recipe, then `taken`, then what the user gave.

    `taken` are settings of the run whose weights this one starts from.
    """
    wanted = {**(taken or {}), **given_settings(namespace)}
    recipe = "paper" if wanted.get("recipe") == "paper" else "default"
    settings = {**fallbacks, **RECIPES[recipe]}
    if wanted.get("diffusion"):
        settings |= DIFFUSION_RECIPES[recipe]
    chosen = {**settings, **wanted}
    if chosen.get("kind") == "flux" and chosen.get("telescope", Config.telescope) == "on":
        settings |= LIGHT_RECIPES.get("diffusion" if wanted.get("diffusion") else chosen.get("generator", "frame"), {})
    return Config(**{**settings, **wanted})


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where to compute, for scripts without a run's settings; see `device.Engine.choose`."""
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps (default: auto)")


def add_time_option(parser: argparse.ArgumentParser) -> None:
    """Add `--minutes`, after which a run stops; the namespace gets `stop_at`, a reading of `time.monotonic`."""
    parser.add_argument(
        "--minutes",
        type=_time_from_now,
        default=math.inf,
        dest="stop_at",
        metavar="X",
        help="stop and save after so many minutes from the start of this command; resume_training.py goes on "
        "(default: at the run's end)",
    )


def _time_from_now(text: str) -> float:
    if not 0 < (minutes := float(text)) <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes: it must be above 0 and at most 1000000")
    return time.monotonic() + 60 * minutes


def need_packages(*packages: str) -> None:
    """Refuse to begin without the packages of the reports.

    Raises
    ------
    UserError
        Naming those that are not installed.
    """
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise UserError(
            f"this needs {', '.join(missing)}: python -m pip install -r requirements-evaluate.txt installs all of it"
        )


def add_solver_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a diffusion model is sampled; see `solver_settings`."""
    group = parser.add_argument_group("diffusion", "How a diffusion model is sampled; by default as its run chose.")
    group.add_argument(
        "--solver",
        choices=SOLVERS,
        help="DPM-Solver++ with or without noise, DDIM, or ancestral",
    )
    group.add_argument(
        "--solver-steps", type=whole_number(1, 100_000), metavar="N", help="steps of the solver, 1 to 100000"
    )
    group.add_argument(
        "--guidance", type=_weight, metavar="W", help="weight of classifier-free guidance, 0 to 100; 1 is none"
    )
    group.add_argument(
        "--photometric-guidance",
        type=_weight,
        metavar="S",
        help="how far each step is moved towards the photometry that is asked for, 0 to 100; 0 is not at all",
    )


def solver_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `generation.solvers.Solver` that the user gave."""
    given = {
        "name": options.solver,
        "num_steps": options.solver_steps,
        "guidance": options.guidance,
        "photometry": options.photometric_guidance,
    }
    return {name: value for name, value in given.items() if value is not None}


def _weight(text: str) -> float:
    if not 0 <= (value := float(text)) <= 100:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 100")
    return value


def run_script(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run a script's `main` and end the process with its exit status.

    0 when it returns; 2 after a `UserError`, a failing disk, too little memory or a failing GPU, printed to standard
    error as one sentence; 130 after Ctrl-C; 141, without a word, when whoever read the output has gone, as `head` has
    after ten lines: so end the tools of Unix.
    """
    program = os.path.basename(sys.argv[0])  # noqa: PTH119 - argv[0] is text, not a path to open
    _open_streams()
    try:
        main(None)
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be said
    except UserError as error:
        if str(error):  # else another process of the same work has said it
            _say(f"{program}: error: {_one_line(str(error))}")
        _leave(2, error.at_once)
    except OSError as error:  # a full disk or a folder without permission, wherever it was met
        if _has_no_reader(error):
            _leave(_NO_READER)
        # What is written to a file passes `plain_errors`; what has no name is what was printed.
        said = f"the output could not be written: {reason(error)}" if error.filename is None else str(error)
        _say(f"{program}: error: {said}")
        _leave(2)
    except SystemExit:  # of a signal
        _drop_lost_streams()
        raise
    except Exception as error:
        sentence = device_failure(error)
        if sentence is None:
            raise
        _say(f"{program}: error: {sentence}")
        _leave(2)
    except KeyboardInterrupt:
        _say(f"\n{program}: interrupted")
        _leave(130)
    _leave(0)


def _open_streams() -> None:
    """Make standard streams take any character, and give a process that was begun without one a stream to nowhere.

    Else a file that is opened later would get the stream's number, and what a library prints would stand in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - until the end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not know every character of a report
            stream.reconfigure(errors="replace")


def _has_no_reader(error: OSError) -> bool:
    """Tell whether the other end of a pipe was closed; Windows calls that an invalid argument."""
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)


def _drop_lost_streams() -> None:
    """Lead the standard streams that take nothing more to nowhere: Python tries them at its end, and would complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(text: str) -> None:
    """Print to standard error, if anybody is there, after all that was printed before."""
    _drop_lost_streams()
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _drop_lost_streams()


def _one_line(text: str) -> str:
    """Return a sentence in one line; of names in it, characters that move the cursor are written as Python does."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def _leave(status: int, at_once: bool = False) -> NoReturn:
    """End the process; at once, without tidying up, if asked to or if it is one of several that work together.

    The threads by which ranks speak to each other can abort a process that has ended well, while it is torn down.
    """
    _drop_lost_streams()
    if at_once or os.environ.get("WORLD_SIZE", "1") != "1":
        os._exit(status)
    sys.exit(status)
