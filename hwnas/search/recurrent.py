"""The recipes that can search a space of recurrent cells."""

from __future__ import annotations

from hwnas.errors import HwnasError
from hwnas.recipe import Finalists, Recipe


def require_recurrent(recipe: Recipe) -> None:
    """Raise HwnasError for a recipe with settings that only networks of images have."""
    images_only = {
        "partial_channels": recipe.partial_channels > 1 or any(s.partial_channels > 1 for s in recipe.stages),
        "shared_features": recipe.shared_features,
        "drop_path": recipe.drop_path > 0,
        "finalists": isinstance(recipe.finalists, Finalists),
    }
    if found := next((name for name, given in images_only.items() if given), None):
        raise HwnasError(
            f"{found} is for networks of images, and recipe {recipe.method} is to search one of words",
            "leave it out of the recipe (--finalists 0), or use one of configs/search/recurrent",
        )
