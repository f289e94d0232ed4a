"""Packages of extras that a development install may lack."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

needs_litert = pytest.mark.skipif(find_spec("ai_edge_litert") is None, reason="needs hwnas[litert]")
needs_executorch = pytest.mark.skipif(find_spec("executorch") is None, reason="needs hwnas[executorch]")
