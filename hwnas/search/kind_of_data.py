"""The settings of a recipe that only networks of images have, or only networks of words."""

from __future__ import annotations

from hwnas.errors import HwnasError
from hwnas.recipe import Finalists, Recipe


def require_settings(recipe: Recipe, words: bool) -> None:
    """Raise HwnasError for settings that only the other networks have: those of ``words``, or those of images."""
    of_images = {
        "partial_channels": recipe.partial_channels > 1 or any(s.partial_channels > 1 for s in recipe.stages),
        "shared_features": recipe.shared_features,
        "drop_path": recipe.drop_path > 0,
        "finalists": isinstance(recipe.finalists, Finalists),
    }
    of_words = {"dropout": bool(recipe.dropout)}
    others, kind, own = (of_images, "images", "words") if words else (of_words, "words", "images")
    if found := next((name for name, given in others.items() if given), None):
        raise HwnasError(
            f"{found} is for networks of {kind}, and recipe {recipe.method} is to search one of {own}",
            f"leave {found} out of the recipe" + " (--finalists 0), or use one of configs/search/recurrent" * words,
        )
