"""Validate untrusted content against pydantic models, and describe why it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hwnas.errors import HwnasError
from hwnas.text import printable


class Record(BaseModel):
    """One JSON object of a file. Fields that this version does not declare are kept as they are."""

    # A command uses few of the models, and building them takes most of the time of importing them.
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, defer_build=True)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that were set, under their names in the file."""
        return self.model_dump(by_alias=True, exclude_unset=True)


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], content: Any, source: Path | str, fix: str) -> Model:
    """Return ``content`` as a ``model``.

    Raises HwnasError that names ``source``, the first invalid field and ``fix``.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise HwnasError(f"{source} is incomplete ({first_problem(error)})", fix) from None


def first_problem(error: ValidationError, whole: str = "content") -> str:
    """Return the first invalid field and the reason as ``field: reason``, printable and of bounded length.

    ``whole`` names the content where the error belongs to no single field.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(step)[:100] for step in first["loc"][:10]) or whole
    return printable(f"{field}: {first['msg'][:300]}")
