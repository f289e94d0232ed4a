"""What others wrote, checked before it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hwnas.errors import HwnasError
from hwnas.spaces import Setting
from hwnas.validation import first_problem


class Loose(BaseModel):
    """The files of a run or a benchmark hold more than a report shows."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], content: Any, where: Path | str, again: str) -> Model:
    """``content`` as a model. Raises HwnasError that names the first field that is not as it should be."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise HwnasError(f"{where} is incomplete ({first_problem(error)})", again) from None


def checked_setting(content: dict[str, Any], where: Path | str, again: str) -> Setting:
    """Raises HwnasError for other fields than a setting's."""
    try:
        return Setting(**content)
    except TypeError as error:
        raise HwnasError(f"{where} is incomplete ({error})", again) from None
