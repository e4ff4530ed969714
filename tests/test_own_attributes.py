"""Attributes of a user's own: the line that tells one, its scales, its range, and names that it cannot have."""

import math

import numpy as np
import pytest
import torch

import generate_from_checkpoint
import observe
from config_physics import ATTRIBUTES, Config, attribute_table, check_own_name
from galaxies.common.attributes import (
    RESERVED,
    attribute_defined,
    fault_of_name,
    read_attribute_option,
)
from galaxies.common.errors import UserError
from galaxies.datasets.layout import DISPLAY
from galaxies.datasets.own_attributes import own_attribute
from galaxies.serving.queries import (
    ExampleParameters,
    FileParameters,
    PictureParameters,
    SheetParameters,
    TelescopeParameters,
)

EW = 'halpha_ew:label="H-alpha EW, rest",unit="Angstrom",scale=asinh,softening=2.5,low=-5.0,high=120.0'
SFR = 'sfr:label="Star formation",unit="solar masses / yr",scale=log,low=0.01,high=100.0'
AGE = 'age:label="Age",unit="Gyr",scale=linear,low=1.0,high=13.0'


@pytest.mark.parametrize("line", [EW, SFR, AGE])
def test_a_line_is_read_back_as_it_was(line):
    row = attribute_defined(line)
    assert row.definition() == line
    assert attribute_defined(row.definition()) is row
    assert row.source == "column" and not row.raw


def test_an_option_says_what_it_likes_and_the_rest_follows():
    option = read_attribute_option('HALPHA_EW : column=H_ALPHA_EQW, unit="Å" ,scale=asinh,low=-1e1')
    assert option == ("halpha_ew", "h_alpha_eqw", "Halpha ew", "Å", "asinh", None, -10.0, None)
    assert read_attribute_option("d4000") == ("d4000", "d4000", "D4000", "", "linear", None, None, None)


@pytest.mark.parametrize("scale", ["linear", "log", "asinh"])
@pytest.mark.parametrize("kind", [float, np.array, torch.tensor])
def test_scaling_is_undone_and_goes_from_0_to_1(scale, kind):
    row = attribute_defined({"linear": AGE, "log": SFR, "asinh": EW}[scale])
    ends = [row.low, row.high]
    for value, place in zip(ends, (0.0, 1.0), strict=True):
        given = kind(value) if kind is float else kind([value] * 2)
        assert np.allclose(row.to_unit(given), place, atol=1e-6)
        assert np.allclose(row.from_unit(row.to_unit(given)), value, rtol=1e-5)
        assert type(row.to_unit(given)) is type(given)


def test_scales_are_what_they_are_called():
    sfr, ew = attribute_defined(SFR), attribute_defined(EW)
    assert sfr.to_unit(1.0) == pytest.approx(0.5)  # the middle of 0.01 and 100 on a logarithmic scale
    assert sfr.from_unit(0.25) == pytest.approx(0.1)
    # Far below the softening linear, far above it logarithmic, and odd.
    assert ew.steps_of(0.025) == pytest.approx(0.01, rel=1e-4)
    assert ew.steps_of(2500.0) - ew.steps_of(250.0) == pytest.approx(math.log(10), rel=1e-3)
    assert ew.steps_of(-7.0) == -ew.steps_of(7.0)
    assert attribute_defined(AGE).to_unit(4.0) == 0.25


def test_the_range_holds_the_central_99_percent_and_the_softening_is_the_median():
    values = np.concatenate([np.linspace(0, 100, 1001), [1e6, -1e6], [np.nan] * 50])
    row = own_attribute(read_attribute_option("x:scale=linear"), values)
    assert row.low <= 0.5 and row.high >= 99.5 and row.high - row.low < 110
    row = own_attribute(read_attribute_option("x:scale=asinh"), np.array([-3.0, 0.0, 0.0, 1.0, 40.0]))
    assert row.softening == 3.0  # of 1, 3 and 40
    row = own_attribute(read_attribute_option("x:scale=log,high=2e3"), np.array([0.0123] * 9 + [1.0, 876.0]))
    assert (row.low, row.high) == (0.012, 2000.0)


def test_what_may_be_asked_for_goes_far_beyond_the_range_and_stays_a_number():
    sfr = attribute_defined(SFR)
    low, high = sfr.plausible
    assert 0 < low < 1e-20 and high == 1e20
    low, high = attribute_defined(AGE).plausible
    assert (low, high) == (-119.0, 133.0)
    for row in map(attribute_defined, (EW, SFR, AGE)):
        ends = torch.tensor(row.plausible, dtype=torch.float32)
        assert torch.isfinite(row.to_unit(ends)).all() and (ends != 0).all()


@pytest.mark.parametrize(
    ("values", "option", "said"),
    [
        ([np.nan, np.nan], "x", "known for no galaxy"),
        ([], "x", "known for no galaxy"),
        ([2.0, np.nan, 2.0], "x", "is 2 for every galaxy"),
        ([1.0, 0.0, 2.0], "x:scale=log", "values such as 0 .*no logarithm: take scale=asinh"),
        ([1.0, -3.0, 2.0], "x:scale=log", "values such as -3 "),
        ([1.0, 2.0], "x:low=5", "range from 5 to 2"),
    ],
)
def test_values_of_which_nothing_can_be_learned_are_refused(values, option, said):
    with pytest.raises(UserError, match=said):
        own_attribute(read_attribute_option(option), np.array(values))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x:scale=cubic", "scale is 'cubic', choose one of linear, log, asinh"),
        ("x:colour=red", "'colour' is none of column, label, unit"),
        ("x:unit", "NAME:KEY=VALUE"),
        ("x:unit=a,unit=b", "unit is there twice"),
        ('x:label="a', "NAME:KEY=VALUE"),
        ("x:low=1e30", "low is '1e30', which is no number"),
        ("x:low=inf", "low is 'inf'"),
        ("x:low=3,high=3", "high end of its range must lie above"),
        ("x:scale=log,low=0", "both ends of its range lie above 0"),
        ("x:softening=1", "softening is above 0, and of the scale asinh"),
        ("x:scale=asinh,softening=0", "softening is above 0"),
        ("x:column=", "column has no name"),
        ("x:unit=" + 25 * "m", "unit takes up to 24 characters"),
        ("1x", "is no name"),
        ("h-alpha", "is no name"),
        (33 * "x", "is no name"),
        ("", "is no name"),
        ("seed", "seed has a meaning of its own"),
        ("Count", "count has a meaning of its own"),
        ("requested_x", "meaning of its own"),
    ],
)
def test_a_line_that_is_none_is_refused_in_a_sentence(text, said):
    with pytest.raises(UserError, match=said):
        read_attribute_option(text)


@pytest.mark.parametrize("name", ["size", "redshift", "gini", "magnitude_u", "color_g_r", "color_g_g", "model"])
def test_a_name_that_the_program_knows_is_refused(name):
    with pytest.raises(UserError, match=f"attribute '{name}': "):
        check_own_name(name)
    check_own_name(f"my_{name}")


def test_settings_look_attributes_up_among_their_own_and_check_them():
    config = Config(attributes=("size", "sfr"), attribute_definitions=(EW, SFR))
    assert [row.name for row in config.attribute_rows] == ["size", "sfr"]
    assert config.attribute_rows[1] == attribute_defined(SFR)
    assert Config.from_dict(config.to_dict()) == config
    with pytest.raises(UserError, match="unknown attribute 'age': choose from halpha_ew, sfr, size"):
        attribute_table(("age",), config.own_attributes)
    for lines, said in (
        ((SFR, SFR), "tells sfr twice"),
        (("gini" + SFR[3:],), "gini is an attribute that the program knows"),
        (("sfr",), "lacks its range"),
        ((300 * "x",), "a line for each attribute"),
    ):
        with pytest.raises(UserError, match=said):
            Config(attribute_definitions=lines)


def test_a_range_of_flux_without_a_logarithm_is_refused():
    flux = {"kind": "flux", "bands": ("r",), "softening": (1.0,), "pixel_scale": 0.2, "psf_fwhm": (0.7,)}
    ranges = {"attribute_ranges": (1.0, 10.0, -1.0, 5.0)}
    with pytest.raises(UserError, match="sfr has no logarithm"):
        Config(attributes=("size_arcsec", "sfr"), attribute_definitions=(SFR,), **flux, **ranges)


def test_reserved_names_are_names():
    assert all(name == name.lower() and name.isidentifier() for name in RESERVED)


def test_no_option_and_no_parameter_of_the_program_can_be_an_attribute():
    parsers = [generate_from_checkpoint._parser(), observe._galaxies_parser()]
    known = {row.name for row in ATTRIBUTES.values()} | {"inclination"}
    taken = {action.dest for parser in parsers for action in parser._actions}
    kinds = (PictureParameters, FileParameters, TelescopeParameters, SheetParameters, ExampleParameters)
    taken |= {name for kind in kinds for name in kind.model_fields}
    taken |= {*DISPLAY.columns, "object_id", "split", "morphology"}
    free = [name for name in taken - known if fault_of_name(name) is None]
    assert free == [], "enter them into RESERVED of galaxies/common/attributes.py"
