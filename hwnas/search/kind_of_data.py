"""The settings of a recipe that only networks of images have, or only networks of words."""

from __future__ import annotations

from hwnas.recipe import Finalists, Recipe, refuse_others


def require_settings(recipe: Recipe, words: bool) -> None:
    """Raise HwnasError for settings that only the other networks have: those of ``words``, or those of images."""
    of_images = {
        "partial_channels": recipe.partial_channels > 1 or any(s.partial_channels > 1 for s in recipe.stages),
        "shared_features": recipe.shared_features,
        "drop_path": recipe.drop_path > 0,
        "finalists": isinstance(recipe.finalists, Finalists),
    }
    refuse_others(of_images, {"dropout": recipe.dropout}, words, "one of configs/search/recurrent, with --finalists 0")
