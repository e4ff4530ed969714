"""What stays and what goes of a galaxy that becomes one of another class: on measurements that are known."""

from __future__ import annotations

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.statistics_table import Measured
from studies import pinned_classes


def measured(count=100, flags=None, **columns):
    usual = {
        "centroid_x": 0.0,
        "centroid_y": 0.0,
        "size": 0.1,
        "ellipticity": 0.4,
        "position_angle": 10.0,
        "arm_strength": 3 * VISIBLE_ARMS,
    }
    values = {name: np.full(count, value) for name, value in (usual | columns).items()}
    return Measured(values, np.zeros(count, np.int64) if flags is None else flags)


def test_what_moved_and_what_went_is_said():
    flags = np.where(np.arange(100) < 20, 2, 0)
    after = measured(
        flags=flags, centroid_x=0.03, centroid_y=-0.04, size=0.12, position_angle=175.0, arm_strength=VISIBLE_ARMS / 2
    )
    found = dict(zip(pinned_classes.NAMES, pinned_classes.compared(measured(), after), strict=True))
    sound, radii, widths, size, ellipticity, angle, seen, gone, left = found.values()
    assert sound == "80 of 100"
    assert (radii, widths) == ("0.5, 0.5", "0.05, 0.05")
    assert (size, ellipticity) == ("1.2, 1.2, 1.2", "0, 0, 0")
    assert angle == "15"  # half a turn makes no difference
    assert (seen, gone, left) == ("100 %, 0 %", "100 % of 80", "0.167")


def test_of_round_galaxies_and_of_those_without_arms_nothing_is_said():
    found = pinned_classes.compared(measured(ellipticity=0.1, arm_strength=np.nan), measured())
    assert found[5:] == ["-", "0 %, 100 %", "-", "-"]
    assert pinned_classes.compared(measured(), measured(flags=np.ones(100, np.int64)))[1:] == ["-"] * 8


def test_a_checkpoint_is_looked_at(untrained, capsys):
    pinned_classes.main(["--checkpoint", str(untrained["gan"]), "--count", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("spiral to elliptical, 10 seeds")
    assert [line[:52].strip() for line in lines[2:]] == list(pinned_classes.NAMES)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--after", "spiral"], "--before and --after are both spiral: name two classes"),
        (["--after", "ring"], "unknown morphology 'ring'"),
    ],
)
def test_what_is_no_two_classes_is_refused(untrained, more, said):
    with pytest.raises(UserError, match=said):
        pinned_classes.main(["--checkpoint", str(untrained["gan"]), *more])
