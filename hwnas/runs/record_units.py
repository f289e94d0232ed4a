"""The units of numbers in a run's folder."""

from __future__ import annotations

from pydantic import FiniteFloat

Accuracy = FiniteFloat  # a share from 0 to 1
Milliseconds = FiniteFloat
