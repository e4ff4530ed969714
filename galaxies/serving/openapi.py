"""Describe the server to programs in the words of OpenAPI 3.1, from the table of routes and their models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from galaxies.serving.answers import Answer, Error
from galaxies.serving.queries import GalaxyParameters, SkyParameters, parameters_of

_INFO = {
    "title": "Galaxies with the physics that you asked for",
    "version": "1",
    "summary": "Galaxy images by class, attributes and seed, with what photometry measures on them.",
    "description": "GET and HEAD alone. A request outside the range of a parameter, with an unknown parameter or with "
    "one twice is answered with 400; a request that cannot be served in time with 503 and Retry-After. Sent with a "
    "Host that is not this server's: 421.",
}


@dataclass(frozen=True)
class Route:
    """One address of the server.

    Attributes
    ----------
    path, name, summary : str
        Where it is, which function answers, and what it is for.
    answer : type of Answer, or str
        Model of what is answered in JSON, or the media type of anything else.
    said : str
        What the answer is.
    parameters : type of GalaxyParameters or SkyParameters, or None
        Model of what a request may say; None if it says nothing.
    headers : mapping of str to str
        Headers that this answer has besides those of every answer, and what they are.
    needs_model : bool
        Whether the answer is 503 without a checkpoint.
    """

    path: str
    name: str
    summary: str
    answer: type[Answer] | str
    said: str
    parameters: type[GalaxyParameters] | type[SkyParameters] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    needs_model: bool = True


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the description of routes, as JSON values."""
    parameters: dict[str, dict[str, Any]] = {}
    paths = {route.path: {"get": _operation(route, parameters)} for route in routes}
    answers: list[type[Answer]] = [Error, *(route.answer for route in routes if not isinstance(route.answer, str))]
    components = {"parameters": parameters, "schemas": _schemas(answers), "responses": _FAILURES}
    # Relative to where the description itself is found, which may be below a path of a proxy's.
    servers = [{"url": "..", "description": "The server of this description."}]
    return {"openapi": "3.1.0", "info": _INFO, "servers": servers, "paths": paths, "components": components}


def _operation(route: Route, parameters: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the description of one route; what its requests may say is added to `parameters`."""
    references = []
    for name, parameter in parameters_of(route.parameters).items() if route.parameters else ():
        # One that means something else in two routes, as `pixels` does, is described for both.
        key = name if parameters.setdefault(name, parameter) == parameter else f"{route.name}_{name}"
        parameters[key] = parameter
        references.append({"$ref": f"#/components/parameters/{key}"})
    right: dict[str, Any] = {"description": route.said, "content": _content(route.answer)}
    if route.headers:
        right["headers"] = {
            name: {"description": words, "schema": {"type": "string"}} for name, words in route.headers.items()
        }
    statuses = {"304": "NotModified"} if "ETag" in route.headers else {}
    statuses |= {"400": "BadRequest"} if route.parameters else {}
    statuses |= {"503": "Busy"} if route.needs_model else {}
    failures = {status: {"$ref": f"#/components/responses/{name}"} for status, name in statuses.items()}
    described = {"operationId": route.name, "summary": route.summary, "responses": {"200": right, **failures}}
    return {**described, "parameters": references} if references else described


def _content(answer: type[Answer] | str) -> dict[str, Any]:
    if not isinstance(answer, str):
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}}
    return {answer: {"schema": {"type": "object"}} if answer == "application/json" else {}}


_FAILURES = {
    "BadRequest": {
        "description": "A parameter is unknown, missing, repeated, or none that it takes.",
        "content": _content(Error),
    },
    "Busy": {
        "description": "More is asked than can be served in time, the device that draws failed, or there is no "
        "checkpoint.",
        "headers": {
            "Retry-After": {
                "description": "Seconds after which to ask again; only where more is asked than can be served.",
                "schema": {"type": "integer"},
            }
        },
        "content": _content(Error),
    },
    "NotModified": {"description": "The client has it already."},
}


class _Untitled(GenerateJsonSchema):
    """Schemas whose fields do not repeat their own names as titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return that no field has a title."""
        return False


def _schemas(answers: Iterable[type[Answer]]) -> dict[str, Any]:
    _, whole = models_json_schema(
        [(answer, "serialization") for answer in dict.fromkeys(answers)],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    return whole["$defs"]
