"""The trainings of finalists, each kept in a file of its own, so that an interrupted run repeats none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hwnas.files import sha256_of
from hwnas.finalists.finalist import FinalistResult, FinalistTraining, Start, train_finalist
from hwnas.jobs.executor import Executor
from hwnas.progress import OnProgress
from hwnas.training.checkpoint import Checkpoint

FINALISTS = "finalists"  # the folder of the trainings, in that of the run


@dataclass(frozen=True)
class Evidence:
    """Trains architectures on an executor, and keeps the results in ``folder``, where there is one, for ``digest``."""

    executor: Executor
    folder: Path | None = None
    digest: str = ""

    def train(
        self, stage: str, shared: FinalistTraining, starts: Mapping[str, Start], on_progress: OnProgress
    ) -> dict[str, FinalistResult]:
        """Return the result of a stage's training for every start, by its name: the architecture as text.

        Raises HwnasError where a file is damaged, or a training fails.
        """
        files = {name: self._file(self.folder, stage, name) for name in starts} if self.folder else {}
        results = {name: FinalistResult(**state) for name, file in files.items() if (state := file.load())}
        missing = {name: start for name, start in starts.items() if name not in results}
        for name, trained in self.executor.run(train_finalist, shared, missing):
            if self.folder:
                files[name].save(asdict(trained))
            results[name] = trained
            on_progress(f"training finalists, {stage}", len(results), len(starts))
        return {name: results[name] for name in starts}

    def _file(self, folder: Path, stage: str, name: str) -> Checkpoint:
        key = sha256_of([stage, name])[:16]
        return Checkpoint(folder / FINALISTS / f"{stage}-{key}.pt", f"{self.digest} {name}")
