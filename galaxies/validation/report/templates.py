"""The templates of the report's page and of model cards, and how they write numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from galaxies.validation.report.cells import LeftOut

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).resolve().parent


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; every value is escaped, and a name that it does not know is an error.

    Templates have besides Jinja's own: the filter ``form(".3g")``, which is Python's `format`; the filter
    ``prepend("ρ ")``; the test ``left_out``; ``mapping``, for dictionaries, is Jinja's.
    """
    return _environment().get_template(template).render(**values)


def _environment() -> Environment:
    from jinja2 import (  # where a page or a card is written, and only there
        Environment,
        FileSystemLoader,
        StrictUndefined,
    )

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["form"] = format
    environment.filters["prepend"] = lambda text, head: f"{head}{text}"
    environment.tests["left_out"] = lambda cell: isinstance(cell, LeftOut)
    return environment
