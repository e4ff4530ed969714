"""Datasets that were changed by hand, in every script that reads one: one sentence and status 2, or done."""

from __future__ import annotations

import pytest

from galaxies.datasets.prepared import PreparedDataset
from tests.conftest import write_dataset
from tests.datasets.hand_changes import READ, REFUSED, Changed
from tests.robustness.test_fuzz import check, light_work, sandbox  # noqa: F401

pytestmark = pytest.mark.filterwarnings("default")
_QUICK = "--width 4 --latent-dim 8 --batch-size 2 --pretrain-epochs 1 --epochs 1 --attributes size --dry-run --run new"
SCRIPTS = {
    "galaxy": f"galaxy.py --data DATA {_QUICK}",
    "join": "prepare_data.py join --inputs DATA data/only --out new --allow-empty-class",
    "join, second": "prepare_data.py join --inputs data/only DATA --out new --allow-empty-class",
    "validate": "evaluate.py validate --data DATA",
    "augmentation": "evaluate.py augmentation --checkpoint good.pt --data DATA",
    "average": "evaluate.py average --checkpoint good.pt --data DATA",
    "resume": "resume_training.py --run tiny --epochs 3 --data DATA",
}


def _only(split: str):
    def change(data: Changed) -> None:
        data.set_all("split", split)
        data.count()

    return change


def _one_class(data: Changed) -> None:
    data.set_all("morphology", "merger")
    data.count()


# Odd, and right: what a script makes of them is its own sentence or result.
ODD = {
    "train alone": _only("train"),
    "no training galaxies": _only("test"),
    "judge alone": _only("judge"),
    "one class": _one_class,
    "two galaxies": lambda d: d.keep([0, 1]),
    "one galaxy": lambda d: d.keep([0]),
    "no size known": lambda d: (d.set_all("size", ""), d.count()),
    "one size known": lambda d: ([d.set(k, "size", "") for k in range(1, len(d.rows))], d.count()),
    "the same size for all": lambda d: d.set_all("size", "0.1"),
    "no attribute at all": lambda d: ([d.drop(n) for n in list(d.head[3:])], d.count()),
    "black pictures": lambda d: d.images.fill(0),
    "white pictures": lambda d: d.images.fill(255),
    "one picture for all": lambda d: d.images.__setitem__(slice(None), d.images[0]),
    "ids that are no names": lambda d: [d.set(k, "object_id", f"é {k}/\\..") for k in range(len(d.rows))],
}
_SOME = ("no split column", "four planes", "an .npz named .npy", "deep JSON", "an infinite size", "format '2'")
CASES = {name: change for name, (change, _) in REFUSED.items()} | {f"read: {n}": c for n, c in (READ | ODD).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("whole") / "d", 24, seed=1)


def _marked():
    for name in CASES:
        for script in SCRIPTS:
            fast = (name in _SOME and script in ("galaxy", "join", "validate")) or (
                name.startswith("read: ") and name[6:] in ODD and script == "join"
            )
            yield pytest.param(name, script, id=f"{name}, {script}", marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("name", "script"), list(_marked()))
def test_a_dataset_that_was_changed_in_each_script(light_work, whole, tmp_path, count, name, script):  # noqa: F811
    data = Changed(whole, tmp_path / "d")
    CASES[name](data)
    path = data.finish(True)
    line, *argv = SCRIPTS[script].replace("DATA", str(path)).split()
    if script == "join":
        argv[-2] = str(tmp_path / "out")
    status = check(line, argv)
    assert status == 2 or name.startswith("read: ")
    count(f"datasets changed by hand in {script}")
    if status == 0 and script == "join":
        assert len(PreparedDataset.open(tmp_path / "out").images) >= 160
