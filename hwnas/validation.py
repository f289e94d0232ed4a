"""Typed JSON: models of the objects in our files, and validation of content that somebody else wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hwnas.errors import HwnasError


class Record(BaseModel):
    """One JSON object of a file. Fields that this version does not declare are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

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
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step)[:60] for step in first["loc"][:6]) or "all of it"
        raise HwnasError(f"{source} is incomplete ({field}: {first['msg'][:200]})", fix) from None
