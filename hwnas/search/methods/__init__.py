"""The methods that come with hwnas, one module each: its docstring is the method's page in docs/methods."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

METHODS = {  # the module of every method for all spaces
    "snas": "snas",
    "entrannas": "entrannas",
    "entrannas-dst": "entrannas",
    "advantagenas": "advantagenas",
    "drnas": "drnas",
    "drnas-progressive": "drnas",
    "darts": "darts",
    "darts-second": "darts",
    "beta-darts": "beta_darts",
    "idarts": "idarts",
    "zarts": "zarts",
    "balenas": "balenas",
    "balenas-tf": "balenas",
    "enas": "enas",
    "gdas": "gdas",
    "pc-darts": "pcdarts",
    "random": "random_search",
    "single-path": "evolution",
    "svge": "svge",
}
CHAIN_METHODS = {"bignas": "bignas"}  # the same for methods that chains of layers alone have
SHARED = ("distribution", "execution", "selection")  # modules of choices that belong to no single method


def register_builtin() -> None:
    """Register the choices that come with hwnas. Whatever assembles a search calls this; again it changes nothing."""
    for name in SHARED:
        import_module(f"hwnas.search.{name}")
    for method in (*METHODS, *CHAIN_METHODS):
        module_of(method)


def module_of(method: str) -> ModuleType:
    return import_module(f"{__name__}.{(METHODS | CHAIN_METHODS)[method]}")
