"""What the server says in JSON, as pydantic models: answers are built of them, and OpenAPI describes them from them."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from galaxies.common.attributes import SCALES
from galaxies.common.origin import Origin

Verdict = Literal["like", "unusual", "invented"]  # those of `Population.support`, in its order
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Answer(BaseModel):
    """Any of them; a name that is not described is a fault of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Error(Answer):
    """Why there is nothing else."""

    error: str = Field(description="One sentence for people.")
    parameter: str | None = Field(default=None, description="What was wrong (400).")
    allowed: str | None = Field(default=None, description="What it may be (400).")
    hint: str | None = Field(default=None, description="Command that makes a checkpoint (503 without one).")


class Health(Answer):
    """That the server is alive."""

    status: Literal["ok"]


class MorphologyFacts(Answer):
    """A class."""

    name: str
    label: str
    description: str


class AttributeFacts(Answer):
    """An attribute of a model."""

    name: str
    label: str
    unit: str = Field(description="Empty for a pure number.")
    description: str
    low: float
    high: float
    scale: str = Field(description="In what its slider goes in equal steps.", json_schema_extra={"enum": list(SCALES)})
    softening: float | None = Field(description="Of asinh: the scale is asinh(value / softening); else null.")
    step: float = Field(gt=0, description="Sensible increment, at the narrow end of the slider.")
    told: float | None = Field(
        description="R2 with which the run's predictor read it off pictures of test galaxies; null where unknown."
    )
    is_told: bool | None = Field(description="Whether a picture tells of it at all, by that; null where unknown.")
    measured: bool = Field(description="Whether photometry measures it on a picture.")
    supported: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)] | None] = Field(
        description="Central 98 % of the real galaxies of each of the model's classes."
    )
    typical: dict[str, float | None] = Field(description="Median of the real galaxies of each of the model's classes.")


class TrainingData(Answer):
    """Of which galaxies a model was made; null where unknown."""

    source: str | None
    count: int | None = Field(description="In the dataset, with those of its judge and test split.")
    trained_on: int = Field(description="In the split that it was trained on.")
    credit: str | None = Field(description="Whom the data are owed to.")
    are_mock: bool = Field(description="Whether no telescope saw them: a mock survey drew them, or a simulation.")
    origin: Origin = Field(description="What they are called: real, mock, or simulated.")


class TelescopeBandFacts(Answer):
    """A filter of a survey that sees a model's light."""

    name: str
    psf_fwhm: float = Field(description="Full width at half maximum of the PSF, arcsec.")
    exposure_s: float = Field(description="Of the survey itself, seconds.")


class TelescopeFacts(Answer):
    """A survey that the light of a model can be seen through, or cannot."""

    name: str
    label: str
    pixel_scale: float | None = Field(description="Arcsec a pixel; null of one that cannot see it.")
    binning: int = Field(description="Of its own pixels, so many a side are one here: the light has none so fine.")
    bands: list[TelescopeBandFacts] = Field(description="Those that the light tells of.")
    refused: str | None = Field(description="Sentence on why it cannot see the light; null of one that can.")


class ModelFacts(Answer):
    """A model that draws galaxies."""

    id: str
    family: str
    checkpoint: str = Field(description="Run folder and file.")
    card: str | None = Field(description="Address of the card that lies beside a release, from the page; null of none.")
    description: str
    image_size: int
    kind: str = Field(description="What it draws: display, pictures of red, green and blue; or flux, light in nJy.")
    bands: list[str] = Field(description="Planes of its images.")
    wavelengths: list[float] = Field(description="Of the bands, nm; empty of a display, and where one is unknown.")
    composite: list[list[int]] = Field(description="Of which planes red, green and blue of its pictures are the mean.")
    classes: list[str] = Field(description="Names of the classes that it knows, among the morphologies.")
    mixes: bool = Field(description="Whether it was trained on shares of classes, and takes mixtures of them.")
    pixel_scale: float | None = Field(description="Arcsec a pixel of flux, null of a display.")
    light_pixel_scale: float | None = Field(description="The same of the light that telescopes observe; null of none.")
    training_data: TrainingData
    step: int | None = Field(description="Of the training.")
    preview_steps: int | None = Field(description="solver_steps of a preview while something moves; null needs none.")
    attributes: list[AttributeFacts]
    telescopes: list[TelescopeFacts] = Field(description="Surveys for telescope.png; none of a model of no light.")


class RealFacts(Answer):
    """A set of real galaxies, of which the nearest to a request are shown."""

    count: int
    credit: str = Field(description="Whom the pictures are owed to.")
    are_mock: bool = Field(description="Whether no telescope saw them: a mock survey drew them, or a simulation.")
    origin: Origin = Field(description="What they are called: real, mock, or simulated.")


class NeighbourFacts(Answer):
    """One of them."""

    object_id: str
    distance: float = Field(description="To the request, in spreads of the class.")
    values: dict[str, float | None] = Field(description="Its attributes; null where unknown.")
    picture: str = Field(description="A PNG file as a data: address.")


class Neighbours(Answer):
    """The nearest ones of the class, nearest first; none without a set, and where nothing is set."""

    galaxies: list[NeighbourFacts]


class SkyFacts(Answer):
    """How the sky of a model is cut into tiles."""

    pixels: int = Field(description="Of a tile, a side.")
    first: int = Field(description="Column and row of the first tile.")
    last: int = Field(description="Column and row of the last tile.")
    most: int = Field(description="Highest number of a sky.")


class SkyGalaxy(Answer):
    """A galaxy of a sky."""

    x: float = Field(description="Place in its tile, pixels from the upper left corner.")
    y: float
    radius: float = Field(description="Half-light radius as the sky counts it, pixels.")
    magnitude: float = Field(description="AB, as the sky counts it; by that of pictures only their numbers and sizes.")
    morphology: str
    seed: int
    values: dict[str, float] = Field(
        description="Attributes that the model was asked for; with class and seed they are the request for the galaxy."
    )


class SkyTile(Answer):
    """The galaxies whose middle lies in a tile of a sky, the brightest first."""

    survey: str | None = Field(description="That sees the sky; null of a model of pictures.")
    pixel_scale: float = Field(description="Arcsec a pixel.")
    galaxies: list[SkyGalaxy]


class Facts(Answer):
    """What can be asked for."""

    default: str = Field(description="Model that answers where a request names none.")
    morphologies: list[MorphologyFacts]
    models: list[ModelFacts] = Field(min_length=1)
    real: RealFacts | None = Field(description="Real galaxies for /api/nearest; null without --real.")
    pixels: list[int]
    max_seed: int
    sky: SkyFacts


class AttributeReport(Answer):
    """An attribute of a galaxy that was drawn."""

    requested: float | None = Field(description="As set, or as drawn from real galaxies; null where unknown.")
    measured: float | None = Field(description="By photometry; null where it cannot.")
    set: bool
    supported: bool = Field(description="By itself within the range of the real galaxies of the class.")


class EllipseFacts(Answer):
    """An ellipse on the picture, in widths of it; places from its upper left corner."""

    x: float
    y: float
    semi_major: float
    semi_minor: float
    angle: float = Field(description="Of the major axis, degrees from the right towards the picture's lower edge.")


class Tile(Answer):
    """A galaxy that was drawn and measured."""

    morphology: str
    seed: int
    model: str
    attributes: dict[str, AttributeReport]
    supported: bool = Field(description="Whether the request is like real galaxies of the class.")
    support: Verdict = Field(
        description="Like real galaxies of the class in all attributes that are set, unusual among them, or invented: "
        "not even the nearest one is near."
    )
    nearest: float | None = Field(
        description="Distance to the nearest real galaxy of the class in what is set, in the class's spreads; null "
        "where nothing is set or known."
    )
    notes: list[str] = Field(description="Sentences on what is not like real galaxies.")
    besides: dict[str, float | None] | None = Field(
        default=None, description="Of flux: what else photometry measures, by name, in the units of such attributes."
    )
    shares: dict[str, float] | None = Field(
        default=None, description="Of the classes that a mixture was asked for of; morphology is that of the largest."
    )
    ellipse: EllipseFacts | None = Field(
        description="Ellipse about the measured centroid, of the measured shape, that holds half of the light; null "
        "where there is no galaxy to measure, or its size or shape is not measured."
    )
    flag: int = Field(description="Of photometry; 0 is a sound measurement.")
    flag_meaning: str


class Measurement(Tile):
    """A galaxy that was drawn and measured, and how long that took."""

    milliseconds: float = Field(description="That the answer took.")


class Sheet(Answer):
    """The galaxies of a sheet, in the order of its tiles."""

    tiles: list[Tile]
