"""Every method that comes with hwnas: importing this module registers the choices that recipes name."""

from __future__ import annotations

from hwnas.search import distribution, execution, selection
from hwnas.search.methods import (
    advantagenas,
    darts,
    drnas,
    enas,
    entrannas,
    evolution,
    gdas,
    pcdarts,
    random_search,
    snas,
)

SHARED = (distribution, execution, selection)
# What documents a method: the module whose docstring is its page.
METHODS = {
    "snas": snas,
    "entrannas": entrannas,
    "entrannas-dst": entrannas,
    "advantagenas": advantagenas,
    "drnas": drnas,
    "drnas-progressive": drnas,
    "darts": darts,
    "darts-second": darts,
    "enas": enas,
    "gdas": gdas,
    "pc-darts": pcdarts,
    "random": random_search,
    "single-path": evolution,
}
