"""Read the query of a request for galaxies: every value checked here, once, before anything is done with it.

The pydantic models say what each kind of request takes. The checks, the sentences that refuse a request and the OpenAPI
description all come from them. Attributes and classes are those of the tables of `config_physics`, and those that the
models that are served have beside them; see `kind_for`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import unquote_to_bytes

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic.config import JsonDict

from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES, Attribute, attribute_of
from galaxies.common.errors import shown
from galaxies.common.parsing import MAX_SEED
from galaxies.generation.request_values import (
    RequestError,
    attribute_value,
    check_known,
    class_shares,
    given_twice,
    mixture_refused,
    seed_value,
    whole_value,
)
from galaxies.mock_field.tiles import FIRST, LAST, MOST_SKY, TILE_PX

Pixels = Literal[64, 128, 256, 512]
TilePixels = Literal[64, 128, 256]
PIXELS: tuple[int, ...] = get_args(Pixels)
TILE_PIXELS: tuple[int, ...] = get_args(TilePixels)
SEEDS = (2, 64)  # tiles of a sheet of seeds, fewest and most
STEPS = (3, 33)  # and of a sheet that sweeps an attribute
COLUMNS = (1, 64)
EXAMPLES = (1, 16)  # clear ones of a class
SOLVER_STEPS = (1, 16)  # of a preview
EXPOSURES = (1, 10_000_000)  # seconds before a telescope
LONGEST_QUERY = 2000  # characters
FAMILIES = {"gan": "GAN", "diffusion": "diffusion"}  # of models, by id, in the order of preference
_MIXTURE = r"^.+:[0-9]*\.?[0-9]+$"  # of classes, in the words of OpenAPI
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class GalaxyQuery:
    """One wanted galaxy, as a model draws it.

    Attributes
    ----------
    model : str
        Id of the model that draws it.
    class_index : int
    values : tuple of float or None
        What was set, in the order of the model's attributes, physical units; None for what was not.
    seed : int
    others : tuple of float or None, or None
        Values for what was not set, None for those that stay unknown; None if they are to be drawn.
    shares : tuple of float, or None
        Of the model's classes, of sum 1, where a mixture is asked for; `class_index` has that of the largest.
    solver_steps : int or None
        Of a preview by a diffusion model; None for the picture itself.
    seen_by : tuple of str and int or None, or None
        Name of a survey that observes it, and for how many seconds, None for its own; None for what the model draws.
    as_light : bool
        Whether its light is wanted, as it is before any telescope.
    """

    model: str
    class_index: int
    values: tuple[float | None, ...]
    seed: int
    others: tuple[float | None, ...] | None = None
    shares: tuple[float, ...] | None = None
    solver_steps: int | None = None
    seen_by: tuple[str, int | None] | None = None
    as_light: bool = False

    @property
    def wanted(self) -> list[float]:
        """Value of each attribute, NaN for what is to be drawn or stays unknown."""
        pairs = zip(self.values, self.others or self.values, strict=True)
        found = [other if value is None else value for value, other in pairs]
        return [math.nan if value is None else value for value in found]

    def with_value(self, index: int, value: float) -> GalaxyQuery:
        """Return the query with another value of one attribute."""
        return replace(self, values=(*self.values[:index], value, *self.values[index + 1 :]))


# What a request may say


def _read_by(reader: Callable[[Any], Any]) -> BeforeValidator:
    """Return what has pydantic read a value by a rule of ours; `_refusal` asks it again for its sentence.

    It stands last in a type, where it is first in turn: pydantic describes a range only beside its number.
    """

    def read(text: Any) -> Any:
        if isinstance(text, list):
            raise ValueError
        try:
            return reader(text)
        except RequestError:
            raise ValueError from None

    return BeforeValidator(read)


def _whole(name: str, limits: tuple[int, int]) -> BeforeValidator:
    return _read_by(lambda text: whole_value(name, text, *limits))


def _choice(text: Any) -> int:
    """Read one of a few whole numbers, which are written in one way; a list is one that is there twice."""
    if isinstance(text, list) or not re.fullmatch("[1-9][0-9]{0,9}", text):
        raise ValueError
    return int(text)


Parameters = TypeVar("Parameters", bound="GalaxyParameters | SkyParameters")


class Served(NamedTuple):
    """What a model that is served can be asked for.

    attributes: those that it knows. classes: their names by their index. mixes: whether it takes shares of classes.
    """

    attributes: tuple[Attribute, ...]
    classes: tuple[str, ...]
    mixes: bool = False


Models = Mapping[str, Served]  # by id


def _with_attributes(kind: type[Parameters]) -> type[Parameters]:
    """Add the attributes of the table to what a request may say, each with its range."""
    return create_model(kind.__name__, __base__=kind, __module__=kind.__module__, **_fields(ATTRIBUTES.values()))


def _fields(attributes: Iterable[Attribute]) -> dict[str, Any]:
    """Return what a request may say of attributes, as fields of pydantic."""
    fields: dict[str, Any] = {}
    for attribute in attributes:
        name = attribute.name
        low, high = attribute.plausible
        unit = f" [{attribute.unit}]" if attribute.unit else ""
        fields[name] = (
            Annotated[float, Field(ge=low, le=high), _read_by(partial(attribute_value, attribute))] | None,
            Field(
                default=None,
                description=f"{attribute.label}{unit}: {attribute.description}. Drawn from real galaxies of the class "
                "where it is left out; only for models that were trained with it.",
                examples=[float(f"{attribute.at(0.5):.6g}")],
            ),
        )
    return fields


def kind_for(kind: type[Parameters], models: Models) -> type[Parameters]:
    """Return a kind of request with the attributes and classes of models beside those of the tables."""
    if not issubclass(kind, GalaxyParameters):
        return kind
    others = _others(models)
    classes = list(dict.fromkeys(name for served in models.values() for name in served.classes))
    mixing = [served for served in models.values() if served.mixes and len(served.classes) > 1]
    if not others and not mixing and set(classes) <= set(MORPHOLOGY_NAMES):
        return kind
    fields = _fields(others.values())
    about = kind.model_fields["morphology"].description
    names: JsonDict = {"enum": [*classes]}
    choice: JsonDict = names
    if mixing:
        one, other = mixing[0].classes[:2]
        mixture = f"{one}:0.7,{other}:0.3"
        about = f"{about} Of models that were trained on shares of classes also a mixture, such as {mixture}, of sum 1."
        choice = {"oneOf": [names, {"pattern": _MIXTURE}]}
    fields["morphology"] = (
        Annotated[str, Field(min_length=1)],
        Field(description=about, examples=classes[:1], json_schema_extra=choice),
    )
    if sweep := kind.model_fields.get("sweep"):
        swept: JsonDict = {"enum": [*ATTRIBUTES, *others]}
        example = [a.name for served in models.values() for a in served.attributes][:1]
        fields["sweep"] = (
            str | None,
            Field(default=None, description=sweep.description, examples=example, json_schema_extra=swept),
        )
    return create_model(kind.__name__, __base__=kind, __module__=kind.__module__, **fields)


def _others(models: Models) -> dict[str, Attribute]:
    """Return the attributes of models that are not in the table; what two call alike takes what either takes."""
    others: dict[str, Attribute] = {}
    for attribute in (a for served in models.values() for a in served.attributes if a.name not in ATTRIBUTES):
        other = others.setdefault(attribute.name, attribute)
        ends = zip(other.plausible, attribute.plausible, (min, max), strict=True)
        low, high = (choose(one, two) for one, two, choose in ends)
        others[attribute.name] = replace(other, plausible=(low, high))
    return others


def _model_field(what: str) -> Any:
    """Return the parameter `model` of a request, of which `what` says what it draws."""
    return Field(
        default="",  # `read_query` puts the first one in its place
        description=f"{what}; by default the first one of /api/model.",
        examples=["gan"],
        json_schema_extra={"enum": list(FAMILIES)},
    )


@_with_attributes
class GalaxyParameters(BaseModel):
    """What a request for one galaxy may say: its class, its attributes (those of the table), seed and model.

    It is checked with the models that are served as context; the fields hold what was sent, read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # What it may be is checked in `_suits_the_model`, for that is another one for each model.
    morphology: Annotated[str, Field(min_length=1)] = Field(
        description="Class of the galaxy.",
        examples=[MORPHOLOGY_NAMES[0]],
        json_schema_extra={"enum": list(MORPHOLOGY_NAMES)},
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), _read_by(seed_value)] = Field(
        default=0,
        description="Seed of the picture; the same request with the same seed gives the same bytes.",
        examples=[7],
    )
    model: str = _model_field("Model that draws it")

    @model_validator(mode="before")
    @classmethod
    def _suits_the_model(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # Before the values are looked at: nobody shall be told the range of what is then refused.
        models: Models = info.context or {}
        model = given["model"]
        if isinstance(model, list) or not given.keys() <= cls.model_fields.keys():
            return given  # it is refused for that
        _choose("model", model, tuple(models))
        served = models[model]
        others = _others(models)
        check_known(
            [name for name in given if name in others or attribute_of(name)], [a.name for a in served.attributes]
        )
        morphology = given.get("morphology")
        if morphology and isinstance(morphology, str):
            index, shares = class_shares(morphology, served.classes)
            if shares is not None and not served.mixes:
                raise mixture_refused(served.classes)
            if shares is None:
                given = {**given, "morphology": served.classes[index]}
        return given

    def galaxy(self, served: Served) -> GalaxyQuery:
        """Return which galaxy is wanted from a model."""
        values = tuple(getattr(self, attribute.name) for attribute in served.attributes)
        index, shares = class_shares(self.morphology, served.classes)
        return GalaxyQuery(self.model, index, values, self.seed, shares=None if shares is None else tuple(shares))


class PictureParameters(GalaxyParameters):
    """What a request for a picture may say."""

    pixels: Annotated[Pixels, BeforeValidator(_choice)] = Field(
        default=256,
        description="Pixels a side; the galaxy is drawn at the model's own size and enlarged by a Lanczos filter.",
        examples=[128],
    )
    solver_steps: Annotated[int, Field(ge=1, le=SOLVER_STEPS[1]), _whole("solver_steps", SOLVER_STEPS)] | None = Field(
        default=None,
        description="For a preview by a diffusion model, drawn by DDIM in so few steps: soon there, and not the galaxy "
        "that is drawn without. A GAN draws its picture at once, and ignores it.",
        examples=[4],
    )


class FileParameters(GalaxyParameters):
    """What a request for a picture to keep may say."""

    pixels: Annotated[Pixels, BeforeValidator(_choice)] | None = Field(
        default=None,
        description="Pixels a side, enlarged by a Lanczos filter; by default those that the model draws.",
        examples=[512],
    )


class TelescopeParameters(GalaxyParameters):
    """What a request for what a survey sees of a galaxy may say."""

    survey: Literal["SDSS", "LSST", "Euclid_VIS", "COSMOS"] = Field(
        description="Survey that observes the galaxy; /api/model says which can.", examples=["LSST"]
    )
    exposure: Annotated[int, Field(ge=1, le=EXPOSURES[1]), _whole("exposure", EXPOSURES)] | None = Field(
        default=None, description="Seconds in each band; by default the survey's own.", examples=[600]
    )


class SheetParameters(GalaxyParameters):
    """What a request for a sheet of galaxies may say: tiles that differ by their seed, or by one attribute."""

    seeds: Annotated[int, Field(ge=SEEDS[0], le=SEEDS[1]), _whole("seeds", SEEDS)] | None = Field(
        default=None,
        description="Number of galaxies that differ by their seed alone: seed, seed + 1, and so on. Either this or "
        "sweep.",
        examples=[4],
    )
    sweep: str | None = Field(
        default=None,
        description="Attribute that goes from the low to the high end of its range, all else the same. Either this or "
        "seeds.",
        examples=["size"],
        json_schema_extra={"enum": list(ATTRIBUTES)},
    )
    steps: Annotated[int, Field(ge=STEPS[0], le=STEPS[1]), _whole("steps", STEPS)] = Field(
        default=9, description="Number of galaxies of a sweep.", examples=[5]
    )
    columns: Annotated[int, Field(ge=COLUMNS[0], le=COLUMNS[1]), _whole("columns", COLUMNS)] | None = Field(
        default=None, description="Tiles in a row; by default all of them.", examples=[2]
    )
    pixels: Annotated[TilePixels, BeforeValidator(_choice)] = Field(
        default=64, description="Pixels a side of each tile.", examples=[128]
    )

    @model_validator(mode="after")
    def _is_one_kind_of_sheet(self, info: ValidationInfo) -> SheetParameters:
        models: Models = info.context or {}
        if self.sweep is not None:
            _choose("sweep", self.sweep, tuple(attribute.name for attribute in models[self.model].attributes))
            if self.seeds is not None:
                raise RequestError("seeds cannot be combined with sweep: give one of them", "seeds", "left out")
        elif "steps" in self.model_fields_set:
            raise RequestError("steps needs sweep, the name of an attribute", "steps", "left out without sweep")
        elif self.seeds is None:
            allowed = f"{SEEDS[0]} to {SEEDS[1]}"
            raise RequestError(f"seeds is missing: it takes a whole number from {allowed}", "seeds", allowed)
        return self

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.steps if self.seeds is None else self.seeds


class ExampleParameters(GalaxyParameters):
    """What a request for clear examples of a class may say."""

    count: Annotated[int, Field(ge=EXAMPLES[0], le=EXAMPLES[1]), _whole("count", EXAMPLES)] = Field(
        default=4,
        description="Number of examples; fewer are found where a model draws few that are clear. They are among the "
        "galaxies of seed, seed + 1, and so on.",
        examples=[2],
    )


class SkyParameters(BaseModel):
    """What a request for a tile of a model's sky may say: which sky, which tile, and through what it is seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sky: Annotated[int, Field(ge=0, le=MOST_SKY), _whole("sky", (0, MOST_SKY))] = Field(
        default=1, description="Number of the sky: of each other galaxies.", examples=[3]
    )
    x: Annotated[int, Field(ge=FIRST, le=LAST), _whole("x", (FIRST, LAST))] = Field(
        default=0,
        description=f"Column of the tile, {TILE_PX} pixels wide; 0 is right of the sky's middle.",
        examples=[-2],
    )
    y: Annotated[int, Field(ge=FIRST, le=LAST), _whole("y", (FIRST, LAST))] = Field(
        default=0, description="Row of the tile; 0 is below the sky's middle.", examples=[1]
    )
    survey: Literal["SDSS", "LSST", "Euclid_VIS", "COSMOS"] | None = Field(
        default=None,
        description="Survey that sees the sky of a model of light, by default LSST, or the first that can; /api/model "
        "says which can. A model of pictures has none.",
        examples=["LSST"],
    )
    model: str = _model_field("Model that draws the galaxies")

    @model_validator(mode="before")
    @classmethod
    def _is_of_a_model(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if not isinstance(given["model"], list) and given.keys() <= cls.model_fields.keys():
            _choose("model", given["model"], tuple(info.context or {}))
        return given


# Reading and refusing


def read_query(kind: type[Parameters], query: str, models: Models) -> Parameters:
    """Read what a request says.

    Parameters
    ----------
    kind : type
        Model of what it may say.
    query : str
        What follows the question mark, as it was sent (bytes as Latin-1).
    models : mapping of str to Served
        The first one answers where none is named.

    Raises
    ------
    RequestError
        If it is too long or is not UTF-8, if a parameter is unknown, missing, empty or repeated, or if a value is none
        that its parameter takes.
    """
    given = _split(query)
    try:
        found: Any = kind.model_validate({"model": next(iter(models)), **given}, context=models)
    except ValidationError as error:
        raise _refusal(kind, given, error, _others(models)) from None
    read: Parameters = found
    return read


def _split(query: str) -> dict[str, str | list[str]]:
    """Return the parameters of a query string by name; a list of values where one is repeated."""
    if len(query) > LONGEST_QUERY:
        raise RequestError(
            f"the query has {len(query)} characters: at most {LONGEST_QUERY} are read",
            "query",
            f"up to {LONGEST_QUERY} characters",
        )
    found: dict[str, list[str]] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        name = _decode(name, "query")
        found.setdefault(name, []).append(_decode(value, name[:60]))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _decode(text: str, parameter: str) -> str:
    """Undo the percent escapes of a name or a value; the library's own replace what they cannot read."""
    try:
        if _BROKEN_ESCAPE.search(text):
            raise ValueError
        return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("utf-8")
    except ValueError:  # UnicodeError is one
        raise RequestError(
            f"{parameter} is not UTF-8 text with percent escapes", parameter, "UTF-8 with percent escapes"
        ) from None


def _refusal(
    kind: type[BaseModel],
    given: Mapping[str, str | list[str]],
    error: ValidationError,
    others: Mapping[str, Attribute],
) -> RequestError:
    """Say in one sentence what is wrong: an unknown parameter before all else, otherwise the first fault."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    name = str(fault["loc"][0])
    value = given.get(name)
    if fault["type"] == "extra_forbidden":
        names = ", ".join(kind.model_fields)
        return RequestError(f"there is no parameter {shown(name)}: choose from {names}", name[:60], names)
    if isinstance(value, list):
        return given_twice(name)
    if value == "":
        return RequestError(f"{name} has no value: give it one or leave it out", name, "one value")
    schema = parameters_of(kind)[name]["schema"]
    try:
        if name in others or attribute_of(name):
            attribute_value(others.get(name, name), value)
        elif "minimum" in schema:
            whole_value(name, value, schema["minimum"], schema["maximum"])
    except RequestError as refused:
        return refused
    choices = schema["enum"] if "enum" in schema else schema["oneOf"][0]["enum"]
    allowed = ", ".join(map(str, choices))
    return RequestError(
        f"{name} is {'missing' if value is None else shown(value)}: choose one of {allowed}", name, allowed
    )


def _choose(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that the served models do not know, however right it would be elsewhere."""
    if value not in choices:
        allowed = ", ".join(choices)
        if value == "":
            raise RequestError(f"{name} has no value: give it one or leave it out", name, "one value")
        raise RequestError(f"{name} is {shown(value)}: choose one of {allowed}", name, allowed)


@cache
def parameters_of(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return what requests of a kind may say, by name, as parameters in the words of OpenAPI 3.1."""
    whole = kind.model_json_schema()
    found = {}
    for name, described in whole["properties"].items():
        alternatives = described.pop("anyOf", [{}])  # a value, or that there is none, which nobody can send
        schema = {**alternatives[0], **described}
        if "enum" in schema or "oneOf" in schema:
            schema.pop("minLength", None)
        if schema.get("default") in (None, ""):
            schema.pop("default", None)
        del schema["title"]
        found[name] = {
            "name": name,
            "in": "query",
            "required": name in whole.get("required", ()),
            "description": schema.pop("description"),
            "schema": schema,
            "example": schema.pop("examples")[0],
        }
    return found
