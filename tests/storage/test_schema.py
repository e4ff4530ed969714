"""What a checkpoint and a release have to be: networks of the settings, each entry in its place, bytes that exist."""

from __future__ import annotations

import collections
import copy
import json
import math
import os
import re
import shutil
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.common.schema import SchemaError
from galaxies.compute.device import Engine
from galaxies.compute.ranks import Ranks
from galaxies.serving.models import load_found
from galaxies.storage import checkpoint, release
from galaxies.storage.checkpoint import DamagedError, load_checkpoint, save_checkpoint
from galaxies.storage.release import SETTINGS, default_checkpoint, find_checkpoints, load_state, write_release
from galaxies.storage.schema import RUN_STATE, TRAINING_STATE, check_run, networks_of
from galaxies.training.trainer import build_learner

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


# Networks


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"generator": "residual", "discriminator": "residual", "class_weight": 1.0, "attributes": ("size",)},
        {"generator": "resize", "discriminator": "dcgan", "regression_weight": 0.0, "image_size": 128},
        {"generator": "transposed", "pixel_noise": False, "uncertainty": False, "condition_mask": False},
        {"batch_norm": False, "regression_weight": 0.0, "latent_dim": 3},
        {"diffusion": True, "width": 8},
        {"diffusion": True, "width": 12, "unet_patch": 4, "unet_blocks": 1, "image_size": 256},
    ],
)
def test_the_networks_of_settings_are_those_that_a_training_has(settings):
    config = Config(**{"width": 4, "device": "cpu", **settings})
    trained, expected = build_learner(config, Engine.choose("cpu", "fp32"), Ranks()).networks, networks_of(config)
    assert trained.keys() == expected.keys()
    for name, network in trained.items():
        there, wanted = network.state_dict(), expected[name].state_dict()
        assert [*there] == [*wanted]
        assert all((there[k].shape, there[k].dtype) == (wanted[k].shape, wanted[k].dtype) for k in there)
        # Adam's moments are kept by the place of a parameter.
        assert [p.shape for p in network.parameters()] == [p.shape for p in expected[name].parameters()]


def test_the_largest_networks_take_no_memory():
    largest = Config(diffusion=True, width=512, image_size=256, unet_blocks=8, unet_patch=1)
    weights = [p for network in networks_of(largest).values() for p in network.parameters()]
    assert sum(p.nbytes for p in weights) > 20e9 and all(p.is_meta for p in weights)


# Entries


@pytest.fixture(scope="module")
def good(trained):
    return load_checkpoint(trained / "checkpoints/tiny/latest.pt", RUN_STATE + TRAINING_STATE)


def with_entry(state, path, value):
    """Return the state with another value at a place; ... takes it out."""
    key, *rest = path
    inner = dict(state) if isinstance(state, dict) else list(state)
    if rest:
        inner[key] = with_entry(state[key], rest, value)
    elif value is ...:
        del inner[key]
    else:
        inner[key] = value
    return inner


WEIGHT = ("networks", "generator", "network.style.0.weight")
ORIGIN = ("run", "file", "sha256", "taken_over")  # see `training.starting.Start.provenance`
ADAM = ("optimizers", "generator", 0)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # Shapes, types and numbers of weights
        (WEIGHT, torch.zeros(20, 16), r"weight is a tensor \(20, 16\) of float32, not a tensor \(16, 20\) of float32"),
        (WEIGHT, torch.zeros(16, 20, dtype=torch.float64), r"is a tensor \(16, 20\) of float64, not a tensor"),
        (WEIGHT, torch.full((16, 20), math.nan), "networks.generator.network.style.0.weight holds nan"),
        (WEIGHT, torch.full((16, 20), -math.inf), "holds -inf"),
        (WEIGHT, [0.0], "is a list of 1, not a tensor"),
        (WEIGHT, ..., "networks.generator.network.style.0.weight is missing"),
        (("networks", "generator", "more"), torch.zeros(1), "networks.generator.more has no business there"),
        (("networks", "judge"), {}, "networks.judge has no business there"),
        (("networks", "discriminator"), ..., "networks.discriminator is missing"),
        (
            ("networks", "predictor", "features.1.running_var"),
            torch.full((4,), -1.0),
            "running_var holds -1, where 0",
        ),
        (("networks", "predictor", "features.1.num_batches_tracked"), torch.tensor(-1), "tracked holds -1"),
        (("ema",), None, "ema is None, not a mapping"),
        (("config", "ema_decay"), 0.0, r"ema is a mapping of \d+, not None"),
        (("ema", "num_averaged"), ..., "ema.num_averaged is missing"),
        # Counts
        (("epoch",), -1, "epoch is -1, not a whole number"),
        (("epoch",), 3, "epoch is 3, not a whole number from 0 to 2"),
        (("epoch",), 1e308, r"epoch is 1e\+308"),
        (("epoch",), True, "epoch is True"),
        (("step",), math.nan, "step is nan, not a whole number from 2 to 480"),
        (("step",), 1, "step is 1, not a whole number from 2"),
        (("step",), 10**9, "step is 1000000000"),
        (("skipped",), -1, "skipped is -1"),
        (("phase",), "done", "phase is 'done', not one of 'predictor', 'generator'"),
        # What the settings are about
        (("config", "width"), ..., "settings width are not those of this release"),
        (("config", "mystery"), 1, "settings mystery are not those of this release"),
        (("config", "width"), 10**9, "width is 1000000000: it must lie between 4 and 512"),
        (("config", "width"), 512, r"a tensor \(16, 20\) of float32, not a tensor \(2048, 20\)"),
        (("config", "image_size"), 10**6, "image_size is 1000000: choose one of 64, 128, 256"),
        (("config", "image_size"), 64.0, "image_size is 64.0"),
        (("config", "attributes"), ["size"], "is a tensor"),
        (("config", "run"), "a\x1b[2J", "config.run is 'a"),
        (("config", "attributes"), [["size"]], "config.attributes is a list of 1, not a number, names"),
        (("attributes",), [], "attributes is a list of 0, not a list of 4 values"),
        (("attributes", 1, "low"), "0", r"attributes\[1\].low is '0', not a finite number"),
        (("attributes", 1, "unit"), ..., r"attributes\[1\].unit is missing"),
        # Real galaxies
        (("population", "classes"), torch.full((134,), 4), "population.classes holds 4, where 0 to 3 is possible"),
        (("population", "classes"), torch.zeros(133, dtype=torch.int64), r"values is a tensor \(134, 4\)"),
        (("population", "classes"), torch.zeros(134), "classes is a tensor .* of float32, not a tensor .* of int64"),
        (("population", "values"), torch.full((134, 4), math.inf), "population.values holds inf"),
        (("population", "values"), torch.zeros(134), r"not a tensor \(134, 4\) of float32"),
        (("population",), None, "population is None, not a mapping"),
        (("provenance", "count"), 0, "provenance.count is 0"),
        (("provenance", "source"), 5, "provenance.source is 5, not None or text"),
        (("provenance", "value_limits"), {"size": [1.0, math.inf]}, r"provenance.value_limits.size\[1\] is inf"),
        (("provenance", "started_from"), {"run": "gan"}, "provenance.started_from.file is missing"),
        (("provenance", "sha256"), "abc", "provenance.sha256 is 'abc', not a mapping"),
        (("provenance", "value_limits"), {"size": [0.0]}, "provenance.value_limits.size is a list of 1"),
        (("provenance", "started_from"), dict.fromkeys(ORIGIN, 5), "provenance.started_from.run is 5"),
        # What going on takes
        ((*ADAM, "exp_avg"), torch.zeros(16), r"optimizers.generator\[0\].exp_avg is a tensor \(16\)"),
        ((*ADAM, "exp_avg_sq"), torch.full((16, 20), -1.0), "exp_avg_sq holds -1, where 0 to"),
        (ADAM, ..., r"optimizers.generator\[0\] is missing"),
        ((*ADAM[:2], 99), {}, r"optimizers.generator\[99\] has no business there"),
        (("claims",), torch.ones(3), r"claims is a tensor \(3\)"),
        (("claims",), torch.full((4,), 2.0), "claims holds 2"),
        (("recovery", "generator", "part"), torch.tensor(0.0), "recovery.generator.part holds 0"),
        (("random", "cpu"), torch.zeros(5056, dtype=torch.uint8), "random.cpu is .*, not the state of a random"),
        (("random", "cpu"), torch.zeros(10, dtype=torch.uint8), "random.cpu is .*, not the state of a random"),
        (("random", "noise_device"), "tpu", "random.noise_device is 'tpu', not one of 'cpu', 'cuda', 'mps'"),
        (("random", "noise_device"), "cuda", "random.noise is .*, not the state of a random generator on CUDA"),
        (("batches", "order"), torch.tensor([160]), "batches.order holds 160, where 0 to 159"),
        (("batches", "order"), torch.zeros(8, dtype=torch.int64), r"batches.turns is a tensor \(0\)"),
        (("batches", "drawn"), 16, "batches.drawn is 16, not a whole number from 0 to 0"),
        (("metrics", 0, "physics"), "low", r"metrics\[0\].physics is 'low', not a number"),
        (("metrics", 0, "kind"), ..., r"metrics\[0\].kind is missing"),
        (("warnings",), "none", "warnings is 'none', not a list"),
        (("health", "parts", "generator"), 0, "health.parts.generator is 0"),
        (("health", "norm_levels", "grad_norm"), [1e4, 3], r"norm_levels.grad_norm\[0\] is 10000"),
        (("health", "norm_levels", "grad_norm"), [1.0], "norm_levels.grad_norm is a list of 1"),
        (("meters", "epoch", "sums"), torch.zeros(4), r"meters.epoch.sums is a tensor \(4\)"),
        (("meters", "epoch", "names"), ["a"], r"meters.epoch.first_bad is a tensor"),
        (("meters", "epoch", "first_bad"), torch.full((15,), math.nan), "first_bad holds nan"),
        (("meters", "epoch", "names"), ..., "meters.epoch.names is missing"),
        (("optimizers",), ..., None),
        (("batches",), ..., "batches is missing"),
        (("augmentation",), {}, "augmentation has no business there"),
        (("power_averages",), {}, "power_averages has no business there"),
        (("config", "average_snapshots"), 2, "power_averages is missing"),
        (("surprise",), 1, "surprise has no business there"),
    ],
)
def test_what_cannot_be_is_named_by_its_place(good, path, value, said):
    state = with_entry(good, path, value)
    if said is None:
        check_run(state)  # it can be drawn from
        return
    with pytest.raises((SchemaError, UserError), match=said):
        check_run(state)


@pytest.mark.parametrize(
    "place",
    [
        *("networks", "networks.generator", "population", "optimizers"),
        *("recovery", "recovery.generator", "health", "health.parts", "meters", "meters.epoch", "random", "batches"),
    ],
)
def test_an_entry_that_no_run_has_is_named(good, place):
    with pytest.raises(SchemaError, match=rf"{re.escape(place)}\.surprise has no business there"):
        check_run(with_entry(good, [*place.split("."), "surprise"], 1))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 2e12, -2e12])
def test_one_number_among_many_is_noticed(good, number):
    weight = good["networks"]["generator"][WEIGHT[-1]].clone()
    weight[3, 7] = number
    with pytest.raises(SchemaError, match=rf"weight holds {re.escape(f'{number:g}')}, where -1e\+12 to 1e\+12"):
        check_run(with_entry(good, WEIGHT, weight))


@pytest.mark.parametrize("spoilt", [3, 17, 29])
def test_a_mean_that_was_not_known_may_be_missing_and_a_count_not(good, spoilt):
    sums = good["meters"]["epoch"]["sums"].clone()  # fifteen terms, then what is counted
    sums[spoilt] = math.nan
    state = with_entry(good, ("meters", "epoch", "sums"), sums)
    if spoilt < 15:
        check_run(state)
    else:
        with pytest.raises(SchemaError, match=r"meters.epoch.sums\[15:\] holds nan"):
            check_run(state)


def test_unknown_values_of_real_galaxies_are_no_fault(good):
    check_run(with_entry(good, ("population", "values"), torch.full((134, 4), math.nan)))


def test_nothing_goes_on_from_what_only_drawing_takes(good, tmp_path):
    save_checkpoint(tmp_path / "a.pt", {n: v for n, v in good.items() if n not in ("optimizers", "batches")})
    assert load_checkpoint(tmp_path / "a.pt", RUN_STATE)["step"] == good["step"]
    with pytest.raises(UserError, match="cannot be gone on from, since it has no batches, optimizers"):
        load_checkpoint(tmp_path / "a.pt", RUN_STATE + TRAINING_STATE)


# Bytes


def write(path, value):
    """Write a value beside a good checksum, as far as there is one."""
    torch.save({"w": {"x": value}, "format_version": 3, "sha256": "0" * 64}, path)


def loop():
    ring: dict = {}
    ring["again"] = [ring]
    return ring


def doubled(times):
    value = [1]
    for _ in range(times):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.ones(3).to_sparse(), "w.x is a sparse tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "w.x is a sparse tensor"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "w.x is a nested tensor"),
        (lambda: torch.ones(3, device="meta"), "w.x is a tensor without values"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "w.x is a quantised tensor"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj(), "w.x is more than the values of a tensor"),
        (lambda: torch.ones(3, requires_grad=True), "w.x is more than the values of a tensor"),
        (lambda: torch.nn.Parameter(torch.ones(3)), "w.x is a parameter"),
        (lambda: torch.ones(1).expand(10**5, 10**5), "w.x is expanded"),
        (lambda: torch.arange(9.0).as_strided((4, 4), (1, 1)), "w.x is expanded"),
        (lambda: torch.ones(3, dtype=torch.uint16), "w.x is of a kind of torch's"),
        (loop, "hold themselves, or are far too deep"),
        (lambda: doubled(8), "far too deep or long"),
        (lambda: 2**64, "w.x is a number of 65 bits|w.x is 18446744073709551616"),
        (lambda: {1.5: 0}, "the name of an entry of w.x is 1.5"),
        (lambda: {True: 0}, "the name of an entry of w.x is True"),
        (lambda: b"bytes", "damaged or is not a checkpoint"),
        (lambda: {1, 2}, "damaged or is not a checkpoint"),
        (lambda: np.float64(1), "damaged or is not a checkpoint"),
        (lambda: [torch.ones(100_000)] * 40, r"w.x\[\d\] and those before it are of more bytes than the file has"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_content_is_refused(tmp_path, make, said):
    write(tmp_path / "a.pt", make())
    with pytest.raises(DamagedError, match=said):
        load_checkpoint(tmp_path / "a.pt")


def rewritten(path, change, packed=()):
    """Write the entries of an archive anew, each changed by a function of its name and bytes; pack some of them."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            method = zipfile.ZIP_DEFLATED if name.endswith(packed) else zipfile.ZIP_STORED
            archive.writestr(name, change(name, content), method)


def test_views_in_any_order_of_one_storage_are_read_as_they_were(tmp_path):
    whole = torch.arange(24.0)
    content = {
        "first": whole[:6],
        "last": whole[18:],
        "turned": whole[6:18].view(3, 4).t(),
        "columns": torch.arange(12).view(4, 3)[:, :2],
        "nothing": torch.empty(0, 3),
        "one": torch.tensor(5),
        "planes": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "half": torch.rand(3).half(),
        "true": torch.tensor([True, False]),
        "ordered": collections.OrderedDict(a=1),
    }
    save_checkpoint(tmp_path / "a.pt", content)
    loaded, by_torch = load_checkpoint(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt", weights_only=True)
    assert type(loaded.pop("ordered")) is dict and by_torch.pop("ordered") == {"a": 1}
    for name, value in loaded.items():
        if name == "format_version":
            continue
        assert torch.equal(value, by_torch[name]) and value.stride() == by_torch[name].stride(), name
        assert value.dtype == content[name].dtype


def test_numbers_of_every_kind_are_read_as_they_were(tmp_path):
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.int32, torch.int16)
    content = {str(kind): torch.tensor([-3, 0, 100]).to(kind) for kind in (*kinds, torch.int8)}
    content["uint8"] = torch.tensor([0, 200, 255], dtype=torch.uint8)
    save_checkpoint(tmp_path / "a.pt", content)
    loaded = load_checkpoint(tmp_path / "a.pt")
    for name, value in content.items():
        assert loaded[name].dtype == value.dtype and torch.equal(loaded[name], value), name


def test_a_tensor_that_claims_more_than_its_bytes_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"w": torch.ones(7, 11)})
    # The pickle says 77 values in a byte, and the file has them.
    rewritten(tmp_path / "a.pt", lambda name, b: b[: 4 * 70] if name.endswith("data/0") else b)
    with pytest.raises(DamagedError, match="w claims 77 values of a storage of 280 bytes"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"w": torch.ones(99)[3:80]})
    rewritten(tmp_path / "a.pt", lambda name, b: b.replace(b"K\x03K\x4d\x85", b"K\x20K\x4d\x85"))  # begins at 32
    with pytest.raises(DamagedError, match="w claims 109 values of a storage of 99"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("fault", ["packed", "twice", "overlapping", "no pickle", "byte order"])
def test_archives_that_torch_does_not_write_are_refused(tmp_path, fault):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"w": torch.rand(10_000)})
    load_checkpoint(path)
    if fault == "packed":  # the pickle alone, so that the entries together are not longer than the file
        rewritten(path, lambda name, b: b, ("data.pkl",))
    elif fault == "twice":
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(archive.namelist()[-1], archive.read(archive.namelist()[-1]))
    elif fault == "overlapping":  # another name for the same bytes
        with zipfile.ZipFile(path, "a") as archive:
            largest = copy.copy(max(archive.infolist(), key=lambda entry: entry.file_size))
            largest.filename = "archive/data/more"
            archive.filelist.append(largest)
            archive.writestr("archive/another", "")
    elif fault == "no pickle":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/version", "3")
    else:
        other = {"little": b"big", "big": b"little"}[sys.byteorder]
        rewritten(path, lambda name, b: other if name.endswith("/byteorder") else b)
    with pytest.raises(DamagedError, match="damaged or is not a checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",  # lists in lists
        b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 1) + b".",  # a number of 4 thousand million for None
        b"\x80\x02X" + struct.pack("<I", 2**31) + b"short.",
        b"\x80\x02\x8b" + struct.pack("<I", 2**30) + b"\x01.",
        b"\x80\x02cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x02cargparse\nArgumentParser\n.",
        b"\x80\x02}(X\x06\x00\x00\x00sha256N\x8c.",
        b"",
    ],
)
def test_pickles_that_are_made_to_harm_are_refused_at_once(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", content)
    with pytest.raises(DamagedError, match=r"a\.pt"):
        load_checkpoint(tmp_path / "a.pt")


@posix
def test_what_is_no_file_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "null.pt").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("folder", "a folder"), ("null", "a device")):
        with pytest.raises(UserError, match=rf"{name}\.pt is {kind} where a file is expected"):
            load_checkpoint(tmp_path / f"{name}.pt")


# Releases


@pytest.fixture
def released(untrained, tmp_path):
    return write_release(load_checkpoint(untrained["gan"]), tmp_path / "released", torch.float16, {"note": "x"})


def rewrite(weights, change_settings=None, change_tensors=None):
    """Change the parts of a release, and make its checksum right again."""
    settings, tensors = json.loads(weights.with_name(SETTINGS).read_text()), load(weights.read_bytes())
    settings.pop("sha256")
    for change, value in ((change_settings, settings), (change_tensors, tensors)):
        if change:
            change(value)
    content = save(tensors)
    weights.write_bytes(content)
    weights.with_name(SETTINGS).write_text(json.dumps({**settings, "sha256": release._digest(content, settings)}))


def test_a_release_whose_parts_are_written_anew_is_as_good(released):
    rewrite(released)
    assert load_state(released)["epoch"] == 1


@pytest.mark.parametrize(
    ("settings", "tensors", "said"),
    [
        (lambda s: s.update(epoch=-1), None, "epoch is -1"),
        (lambda s: s.update(epoch=None), None, "epoch is None"),
        (lambda s: s.update(format_version=0), None, "is damaged"),
        (lambda s: s["config"].update(width=8), None, r"is a tensor .* of float32, not a tensor"),
        (lambda s: s["config"].update(diffusion=True), None, "networks.generator.* is missing|latent_dim"),
        (lambda s: s.update(config=[]), None, "config is a list of 0, not a mapping"),
        (lambda s: s.update(attributes=s["attributes"] * 2), None, "attributes is a list of 8, not a list of 4"),
        (lambda s: s["provenance"].update(sha256=1), None, "provenance.sha256 is 1"),
        (lambda s: s.pop("provenance"), None, "provenance is missing"),
        (None, lambda t: t.update({"population.classes": torch.full((400,), 9)}), "population.classes holds 9"),
        (None, lambda t: t.pop("population.values"), "population.values is missing"),
        (None, lambda t: t.update({"more": torch.ones(1)}), "networks.more has no business there"),
        (None, lambda t: t.update({"generator.grain.strength": torch.ones(3)}), "grain.strength is a tensor"),
        (None, lambda t: [t.pop(n) for n in [*t] if n.startswith("predictor")], "networks.predictor is missing"),
        (None, lambda t: t.update({n: v * math.nan for n, v in t.items() if v.dtype == torch.float16}), "holds nan"),
    ],
)
def test_a_release_that_was_changed_is_refused(released, settings, tensors, said):
    rewrite(released, settings, tensors)
    with pytest.raises(UserError, match=said):
        load_state(released)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe{\x00}\x00",
        '{"sha256": "x"}'.encode("utf-16"),
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": ' * 100_000,
        b'{"epoch": 1, "epoch": 2, "sha256": ""}',
        b'{"epoch": NaN, "sha256": ""}',
        b'{"epoch": 1e999, "sha256": ""}',
        b'{"epoch": ' + b"9" * 5000 + b', "sha256": ""}',
        b"\x00" * 100,
    ],
)
def test_settings_that_are_no_plain_json_are_refused(released, text):
    released.with_name(SETTINGS).write_bytes(text)
    with pytest.raises(UserError, match=r"generator\.json"):
        load_state(released)


def test_a_byte_order_mark_before_the_settings_changes_nothing(released):
    path = released.with_name(SETTINGS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_state(released)["epoch"] == 1


def header(content: dict) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        struct.pack("<Q", 2**62),
        header({"a": {"dtype": "F32", "shape": [10**18], "data_offsets": [0, 4]}}) + bytes(4),
        header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}) + bytes(4),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 2**40]}}) + bytes(8),
        header({"a": {"dtype": "X1", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
        struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
)
def test_weights_whose_header_lies_are_refused(released, weights):
    path = released.with_name(SETTINGS)
    settings = json.loads(path.read_text())
    settings.pop("sha256")
    released.write_bytes(weights)
    path.write_text(json.dumps({**settings, "sha256": release._digest(weights, settings)}))
    with pytest.raises(DamagedError, match="is no safetensors file"):
        load_state(released)


# A bad run beside a good one


@pytest.fixture
def runs(tmp_path, untrained):
    (tmp_path / "good").mkdir()
    shutil.copy(untrained["gan"], tmp_path / "good/latest.pt")
    os.utime(tmp_path / "good/latest.pt", (1, 1))  # the oldest
    return tmp_path


def lines_of_using(runs, capsys) -> list[list[str]]:
    """Take the default for drawing and for the page; return what each says."""
    said = []
    capsys.readouterr()
    assert default_checkpoint(runs) == runs / "good/latest.pt"
    said.append(capsys.readouterr().err.splitlines())
    (model,) = load_found(find_checkpoints(runs), "cpu")
    assert model.checkpoint == "good/latest.pt"
    said.append(capsys.readouterr().err.splitlines())
    return said


@pytest.mark.parametrize("fault", ["folder", "pipe", "changed", "link", "vanishing"])
def test_a_bad_run_is_named_in_a_line_and_passed_over(runs, untrained, capsys, monkeypatch, fault):
    bad = runs / "bad/latest.pt"
    bad.parent.mkdir()
    if fault == "folder":
        bad.mkdir()
    elif fault == "pipe":
        if os.name == "nt":
            pytest.skip("no pipes in folders")
        os.mkfifo(bad)
    elif fault == "changed":
        save_checkpoint(bad, {**load_checkpoint(untrained["gan"]), "epoch": -1})
    elif fault == "link":
        bad.symlink_to("gone.pt")
    else:
        shutil.copy(untrained["gan"], bad)
        opened = checkpoint.open_regular

        def vanish(path):
            if path == bad:
                raise checkpoint.MissingError(f"there is no file {path}")
            return opened(path)

        monkeypatch.setattr(checkpoint, "open_regular", vanish)
    for lines in lines_of_using(runs, capsys):
        (line,) = lines
        assert str(bad) in line and line.endswith("trying the next one")


def test_a_run_that_may_not_be_looked_into_is_named_and_passed_over(runs, untrained, capsys, monkeypatch):
    bad = runs / "bad/latest.pt"
    bad.parent.mkdir()
    shutil.copy(untrained["gan"], bad)
    looked = type(bad).stat

    def stat(path, **options):  # as for another user than root
        if path == bad:
            raise PermissionError(13, "Permission denied")
        return looked(path, **options)

    monkeypatch.setattr(type(bad), "stat", stat)
    for lines in lines_of_using(runs, capsys):
        (line,) = lines
        assert f"{bad} cannot be read: you are not allowed to" in line


def test_runs_without_a_checkpoint_and_other_files_cost_no_line(runs, capsys):
    (runs / "empty").mkdir()
    (runs / "notes.txt").write_text("hello")
    assert lines_of_using(runs, capsys) == [[], []]
