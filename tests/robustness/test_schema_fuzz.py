"""Checkpoints and releases changed by hand: drawn with, gone on with, measured and served rightly, or refused.

Every entry of a good one, and every place in it, is changed, dropped, retyped and reshaped in turn, and its checksum
made right again. A trial is good if it ends as usual, or with one sentence. What ends as usual must be named in
`HARMLESS`: nothing else may be drawn from. `python -m pytest -m slow -n 0 tests/robustness/test_schema_fuzz.py` tries
all four uses of a thousand changed files; the suite tries one use of some sixty.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import itertools
import json
import math
import random
import re
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load, save

import generate_from_checkpoint
import resume_training
from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.serving.application import create_app
from galaxies.serving.models import load_models
from galaxies.storage import checkpoint, release
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.release import SETTINGS, WEIGHTS, write_release
from galaxies.validation import subject
from galaxies.validation.report.cells import LeftOut

pytestmark = pytest.mark.filterwarnings("ignore")
slow = pytest.mark.slow
SECONDS = 240  # after which a trial hangs


class Variant(NamedTuple):
    """Content that was changed: where, how, and all of it."""

    place: str
    kind: str
    content: Any


# What may be used all the same, by "place: kind": what nothing looks at, what may be so, and other good values.
_IDLE = "|".join(field.name for field in dataclasses.fields(Config) if "family" in field.metadata)
HARMLESS = re.compile(
    rf"""
    config\.(data|run|device|vgg_weights):\ .*
    |config\.\w+:\ (zero|half|true|minus\ one)  # where Config says that it may be so
    |config\.({_IDLE}):\ (huge.*|.*text|control.*)  # the same, and of the family that it is not of
    |attributes\.\d+\.(label|source|description|plausible|scale|softening|r2).*:\ .* |attributes\.\d+:\ more
    |(random\.cpu|random\.noise|batches\.generator):\ tensor\ .*  # other numbers
    |tensors\..*:\ (parameter|with\ a\ gradient|expanded)  # of which safetensors writes the values alone
    |(tensors|networks)\..*\.num_batches_tracked:\ tensor\ 100  # a count as good as any
    |population\.values:\ tensor\ nan  # which is an unknown value
    |bytes:\ damaged  # between the entries, as the checksum says
    |(metrics|warnings|facts)\b.*:\ .*
    |meters\.\w+\.(names|errors)\.\d+:\ (text|empty\ text|control.*)
    |meters\.\w+\.steps:\ zero |meters\.\w+\.(sums|first_bad):\ tensor\ nan
    |(skipped|health\.bad_in_a_row):\ zero |health\.parts\.\w+:\ half
    |health\.norm_levels(\.\w+)?:\ (dropped|renamed|empty\ mapping)
    |health\.norm_levels\.\w+\.\d:\ (zero|half|minus\ one)
    |claims:\ tensor\ .* |optimizers\.\w+:\ empty\ mapping
    |(optimizers|claims|recovery|random|batches|metrics|warnings|skipped|health|meters):\ dropped
    |provenance\.value_limits.*:\ .* |provenance:\ more
    |provenance\.source:\ (none|.*text|control.*) |provenance\.sha256.*:\ .*
    """,
    re.VERBOSE,
)


# What is changed


def strange_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what could stand in the place of a value, each with a name."""
    yield "none", None
    yield "text", "x"
    yield "empty text", ""
    yield "long text", "x" * 100_000
    yield "control characters", "a\x1b[2J\nb\x00"
    yield "empty list", []
    yield "nested list", [[[1, [2]]]]
    yield "empty mapping", {}
    yield "number among names", {1: 2}
    yield "minus one", -1
    yield "zero", 0
    yield "half", 0.5
    yield "true", True
    yield "nan", math.nan
    yield "inf", math.inf
    yield "huge float", 1e308
    yield "huge number", 2**62
    yield "enormous number", 10**30
    yield "tensor", torch.ones(2, 3)
    if isinstance(value, torch.Tensor):
        yield from strange_tensors(value)
    if isinstance(value, dict):
        yield "more", {**value, "more": 1}
        yield "itself", itself(value)
    if isinstance(value, list):
        yield "twice as long", value * 2
        yield "itself", itself(value)


def strange_tensors(value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if value.is_floating_point() and value.numel():
        for name, number in (("nan", math.nan), ("infinite", math.inf), ("largest", 3e38), ("far below", -3e38)):
            spoilt = value.clone(memory_format=torch.contiguous_format)
            spoilt.view(-1)[-1] = number
            yield f"tensor {name}", spoilt
    elif value.numel():
        for name, number in (("-1", -1), ("100", 100), ("largest", torch.iinfo(value.dtype).max)):
            spoilt = value.clone(memory_format=torch.contiguous_format)
            spoilt.view(-1)[-1] = number
            yield f"tensor {name}", spoilt
    yield "double", value.double() if value.dtype != torch.float64 else value.float()
    yield "whole numbers", value.to(torch.int32)
    yield "half precision", value.to(torch.bfloat16)
    yield "complex", value.to(torch.complex64)
    yield "one more dimension", value[None]
    yield "flat", value.reshape(-1) if value.ndim != 1 else value.reshape(-1, 1)
    yield "longer", torch.cat([value.reshape(-1)] * 2 + [torch.zeros(1, dtype=value.dtype)])
    yield "nothing", value.reshape(-1)[:0]
    if value.ndim > 1:
        yield "transposed", value.transpose(0, 1).contiguous() if len({*value.shape[:2]}) == 2 else value[0]
    yield "sparse", value.to_sparse() if value.ndim else torch.zeros(2).to_sparse()
    yield "meta", torch.empty_like(value, device="meta")
    yield "expanded", torch.zeros((), dtype=value.dtype).expand(value.shape if value.numel() > 1 else (2, 3))
    yield "expanded far", torch.zeros((), dtype=value.dtype).expand(10**6, 10**6)
    yield "with a gradient", value.clone().float().requires_grad_()
    yield "parameter", torch.nn.Parameter(value.clone().float())
    if value.ndim and value.is_floating_point():
        yield "nested", torch.nested.nested_tensor([value, value])
        yield "quantised", torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)


def itself(value: Any) -> Any:
    value = copy.copy(value)
    if isinstance(value, dict):
        value["itself"] = value
    else:
        value.append(value)
    return value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every entry, inner ones first named before what is in them."""
    if isinstance(value, dict):
        inner: Any = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        return
    for key, entry in inner:
        yield (*path, key)
        yield from places(entry, (*path, key))


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def changed(content: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of the mappings and lists on the way to a place, changed there."""
    copied = copy.copy(content)
    inner = copied
    for key in path[:-1]:
        inner[key] = copy.copy(inner[key])
        inner = inner[key]
    change(inner, path[-1])
    return copied


def drop(inner: Any, key: Any) -> None:
    del inner[key]


def rename(inner: Any, key: Any) -> None:
    inner["renamed"] = inner.pop(key)


def variants(content: dict[str, Any], count: int, seed: int) -> list[Variant]:
    """Return changed copies of content, the kinds spread over all places.

    What is drawn of a place depends on the place alone, so that an entry more, such as a warning of a slow machine,
    changes nothing elsewhere.
    """
    turns: Counter[tuple[str | int, ...]] = Counter()

    def draw(*words: object) -> random.Random:
        return random.Random(" ".join(map(str, (seed, *words))))

    found = [path for path in places(content) if path != ("sha256",)]
    # Half of them near the top: a network has a hundred tensors, and a step one number.
    top = [path for path in found if len(path) <= 2 and path[0] not in ("networks", "ema", "optimizers")]
    top += [path for path in found if len(path) == 1]
    for paths in (found, top):
        paths.sort(key=lambda path: draw(path).random())
    made = []
    for path in itertools.chain.from_iterable(zip(itertools.cycle(found), itertools.cycle(top), strict=False)):
        if len(made) >= count:
            break
        value = at(content, path)
        kinds: list[tuple[str, Any]] = [*strange_values(value), ("dropped", drop)]
        if isinstance(path[-1], str):
            kinds.append(("renamed", rename))
        turns[path] += 1
        kind, new = draw(path, turns[path]).choice(kinds)
        if not isinstance(value, torch.Tensor) and type(new) is type(value) and new == value:
            continue  # as it was

        def replace(inner: Any, key: Any, new: Any = new) -> None:
            inner[key] = new

        change = new if kind in ("dropped", "renamed") else replace
        made.append(Variant(".".join(map(str, path)), kind, changed(content, path, change)))
    return made


# How it is written


def write_changed(path: Path, content: Any) -> None:
    """Write a checkpoint with whatever is in it, and the checksum that this has."""
    content = {name: value for name, value in content.items() if name != "sha256"}
    try:
        with limited(5):
            digest = checkpoint._digest(content)
    except (Exception, Hanging):  # what cannot be added up
        digest = "0" * 64
    torch.save({**content, "sha256": digest}, path)


def write_changed_release(folder: Path, settings: Any, tensors: dict[str, torch.Tensor]) -> None:
    content = save({name: value.contiguous() for name, value in tensors.items()})
    if isinstance(settings, dict):
        settings = {name: value for name, value in settings.items() if name != "sha256"}
        with contextlib.suppress(Exception):
            settings["sha256"] = release._digest(content, settings)
    (folder / WEIGHTS).write_bytes(content)
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def write_trials(folder: Path, content: dict[str, Any], count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Write changed checkpoints one after another, each over the one before; yield what was changed, and the path."""
    path = folder / "changed.pt"
    for place, kind, new in variants(content, count, seed):
        with contextlib.suppress(RecursionError):
            write_changed(path, new)
            yield f"{place}: {kind}", path


def write_release_trials(weights: Path, folder: Path, count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Do the same with the two files of a release: half of the trials change the settings, half the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    settings, tensors = json.loads(weights.with_name(SETTINGS).read_text()), load(weights.read_bytes())
    for place, kind, new in variants(settings, count // 2, seed):
        with contextlib.suppress(RecursionError, TypeError, ValueError):  # what no JSON can be
            write_changed_release(folder, new, tensors)
            yield f"{place}: {kind}", folder / WEIGHTS
    for place, kind, new in variants({"tensors": tensors}, count // 2, seed):
        if place != "tensors" and all(isinstance(value, torch.Tensor) for value in new["tensors"].values()):
            with contextlib.suppress(Exception):  # what safetensors does not write
                write_changed_release(folder, settings, new["tensors"])
                yield f"{place}: {kind}", folder / WEIGHTS


def write_damaged(good: Path, folder: Path, count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Write files of which some bytes are gone, or others."""
    draw, whole = random.Random(seed), good.read_bytes()
    path = folder / f"damaged{good.suffix}"
    for number in range(count):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[draw.randrange(len(content)) :]
        else:
            for _ in range(draw.choice((1, 20))):
                place = (
                    draw.randrange(len(content)) if number % 3 == 1 else -1 - draw.randrange(min(9000, len(content)))
                )
                content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        yield "bytes: damaged", path


# How it is tried


class Hanging(BaseException):
    pass


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `Hanging` after so long, where the system has alarms."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise Hanging

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def generate(path: Path, work: Path) -> None:
    shutil.rmtree(work / "out", ignore_errors=True)
    options = ["--morphology", "spiral", "--count", "1", "--device", "cpu", "--out", str(work / "out")]
    generate_from_checkpoint.main(["--checkpoint", str(path), *options])


def resume(path: Path, work: Path) -> None:
    """Go on for a step, and save."""
    resume_training.main(["--checkpoint", str(path), "--epochs", "3", "--device", "cpu", "--minutes", "1e-6"])


def evaluate(path: Path, work: Path) -> None:
    """Do what a report begins with."""
    opened = subject.Subject.open(path, work / "data/rendered", "cpu")
    unset = torch.full((2, len(opened.sampler.attributes)), math.nan)
    classes = torch.tensor([0, 1])
    images = opened.sampler.generate(classes, opened.sampler.complete_all(classes, unset, [0, 1]), [0, 1])
    opened.read(images, classes.numpy(), unset.double().numpy(), "fuzz")
    assert isinstance(opened.state["epoch"], int) and isinstance(opened.state["provenance"]["sha256"], dict)


def serve(path: Path, work: Path) -> None:
    models = load_models([path], "cpu")
    client = create_app(models).test_client()
    for place in ("/api/model", f"/api/image.png?model={models[0].id}&morphology=spiral&seed=1"):
        assert client.get(place).status_code == 200


USES = {"generate": generate, "resume": resume, "evaluate": evaluate, "app": serve}


def outcome(use: str, path: Path, work: Path) -> str:
    """Use a file; return "used", the sentence by which it was refused, or what went wrong, which begins with "!"."""
    said = io.StringIO()
    try:
        with limited(SECONDS), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            USES[use](path, work)
    except UserError as error:
        sentence = str(error)
        sound = path.name in sentence or SETTINGS in sentence or "run" in sentence  # which is named, if it is another
        return sentence if sound and sentence.isprintable() and len(sentence) < 1000 else f"! says {sentence!r}"
    except SystemExit as error:
        return "used" if error.code in (0, None) else f"! exit {error.code}"
    except Hanging:
        return "! hangs"
    except Exception as error:
        return f"! {type(error).__name__}: {error}"
    return "used"


# The trials


@pytest.fixture(scope="module")
def work(trained, dataset_path, untrained, tmp_path_factory):
    """A folder with a run, a release and the data, where the scripts are at home."""
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(trained / "checkpoints/tiny", folder / "checkpoints/tiny")
    (folder / "data").mkdir()
    shutil.copytree(dataset_path, folder / "data/rendered")
    state = load_checkpoint(folder / "checkpoints/tiny/latest.pt")
    write_release(state, folder / "released/tiny", torch.float16, {"minutes": 1.5, "machine": {"cores": 2}})
    shutil.copytree(untrained["diffusion"].parent, folder / "checkpoints/diffusion")
    return folder


@pytest.fixture
def at_home(work, monkeypatch):
    monkeypatch.chdir(work)
    monkeypatch.setattr(subject, "load_judge", lambda *_: LeftOut("there is none in this test"))


def trials(work: Path, count: int) -> Iterator[tuple[str, Path]]:
    """Yield `count` changed files: of runs of both families, of a release, and of damaged bytes."""
    run, weights = work / "checkpoints/tiny", work / "released/tiny" / WEIGHTS
    good = load_checkpoint(run / "latest.pt")
    drawn_only = load_checkpoint(work / "checkpoints/diffusion/latest.pt")
    yield from write_trials(run, good, count // 2, 1)
    yield from write_trials(work / "checkpoints/diffusion", drawn_only, count // 6, 2)
    yield from write_release_trials(weights, work / "released/changed", count // 4, 3)
    yield from write_damaged(run / "epoch_0001.pt", run, count // 24, 4)
    yield from write_damaged(weights, weights.parent, count // 24, 5)


@pytest.mark.parametrize(("count_of_files", "all_uses"), [(60, False), pytest.param(1000, True, marks=slow)])
def test_what_was_changed_by_hand_is_used_rightly_or_refused(work, at_home, count, count_of_files, all_uses):
    wrong, number = [], 0
    for number, (what, path) in enumerate(trials(work, count_of_files)):
        for use in USES if all_uses else [list(USES)[number % len(USES)]]:
            came = outcome(use, path, work)
            good = not came.startswith("!") and (came != "used" or HARMLESS.fullmatch(what) is not None)
            count("files changed by hand, uses", good)
            if not good:
                wrong.append(f"{use}, {what}: {came}")
    assert wrong == []
    assert number > 0.8 * count_of_files


def test_the_uses_take_what_is_good_and_notice_what_is_not(work, at_home):
    run = work / "checkpoints/tiny"
    good = load_checkpoint(run / "epoch_0002.pt")
    write_changed(run / "changed.pt", good)
    assert {use: outcome(use, run / "changed.pt", work) for use in USES} == dict.fromkeys(USES, "used")
    write_changed(run / "changed.pt", {**good, "epoch": -1})
    assert all("changed.pt cannot be used, since epoch is -1" in outcome(use, run / "changed.pt", work) for use in USES)
