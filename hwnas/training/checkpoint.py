"""Checkpoints: one file, written atomically, loaded without unpickling anything but tensors and numbers."""

from __future__ import annotations

import io
import pickle
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from hwnas.errors import HwnasError
from hwnas.files import atomic_path
from hwnas.text import quoted
from hwnas.training.processes import Processes

MOST_OVERHEAD = 0.05


class SavingPace:
    """Decides when to save: when saving costs at most 5 % of the time since the last time."""

    def __init__(self) -> None:
        self._saved_at = -float("inf")
        self._cost_s = 0.0

    def due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._cost_s / MOST_OVERHEAD

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure what saving, in the body, costs."""
        start = time.monotonic()
        yield
        self._saved_at = time.monotonic()
        self._cost_s = self._saved_at - start


class Checkpoint:
    """The checkpoint file of a run."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.digest = digest
        self._pace = SavingPace()

    def due(self) -> bool:
        return self._pace.due()

    def save(self, state: dict[str, Any]) -> None:
        with self._pace.saving(), atomic_path(self.path) as temporary:
            torch.save({"digest": self.digest, "state": state}, temporary)

    def load(self) -> dict[str, Any] | None:
        """Return the saved state; None where there is no file.

        Raises HwnasError where the file is damaged or belongs to a run with other settings.
        """
        fix = f"remove it to start over: rm {quoted(self.path)}"
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            digest, state = content["digest"], content["state"]
        except (
            RuntimeError,
            OSError,
            EOFError,
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ):
            raise HwnasError(f"checkpoint {self.path} is truncated or not a checkpoint", fix) from None
        if digest != self.digest:
            raise HwnasError(
                f"checkpoint {self.path} belongs to a run with other settings, data or budgets",
                f"give another folder with --out, or {fix}",
            )
        return state


def pack(digest: str, state: dict[str, Any]) -> bytes:
    """Return the content of the checkpoint file of a state."""
    buffer = io.BytesIO()
    torch.save({"digest": digest, "state": state}, buffer)
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, Any]:
    """Return the state in the content of a checkpoint file, which ``Checkpoint.load`` has read without an error."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)["state"]


class Resumable(Protocol):
    """A search or a training, whose state a checkpoint can hold."""

    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: dict[str, Any]) -> None: ...


def resume(run: Resumable, checkpoint: Checkpoint, processes: Processes) -> bool:
    """Load the state that rank 0 reads into ``run``, in all processes; return True on rank 0 if there was one."""
    saved = checkpoint.load() if processes.is_rank_zero else None
    if saved:
        run.load_state(saved)
    if not processes.is_single:
        run.load_state(processes.from_rank_zero(run.state()))
    return saved is not None
