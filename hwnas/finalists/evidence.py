"""The trainings of finalists, each with a file of its own, so that an interrupted run repeats none of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hwnas.files import sha256_of, write_bytes
from hwnas.finalists.finalist import FinalistResult, FinalistTraining, Start, train_finalist
from hwnas.jobs.executor import Executor
from hwnas.training.checkpoint import Checkpoint, pack, unpack

FINALISTS = "finalists"  # the folder of the trainings, in that of the run


@dataclass(frozen=True)
class Advance:
    """An advance of judging: ``done`` of ``total`` in a stage.

    ``files`` has the content of the file of a training that has ended, by name.
    """

    stage: str
    done: int
    total: int
    files: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the files into the folder of a run."""
        for name, content in self.files.items():
            write_bytes(folder / FINALISTS / name, content)


@dataclass(frozen=True)
class Evidence:
    """Trains architectures on an executor.

    ``files`` has the contents of files of the same run, by name; their trainings are not repeated.
    """

    executor: Executor
    digest: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    def train(
        self, stage: str, shared: FinalistTraining, starts: Mapping[str, Start]
    ) -> Generator[Advance, None, dict[str, FinalistResult]]:
        """Return the result of a stage's training for every start, by its name: the architecture as text.

        Yields an advance for every training. Raises HwnasError where one fails.
        """
        files = {name: f"{stage}-{sha256_of([self.digest, stage, name])[:16]}.pt" for name in starts}
        known = {name: unpack(self.files[file]) for name, file in files.items() if file in self.files}
        results = {name: FinalistResult(**state) for name, state in known.items()}
        missing = {name: start for name, start in starts.items() if name not in results}
        for name, trained in self.executor.run(train_finalist, shared, missing):
            results[name] = trained
            content = {files[name]: pack(self.digest, asdict(trained))}
            yield Advance(f"training finalists, {stage}", len(results), len(starts), content)
        return {name: results[name] for name in starts}


def read_trainings(folder: Path, digest: str) -> dict[str, bytes]:
    """Return the contents of the files of a run's trainings, by name.

    Raises HwnasError where one is damaged or of a run with another digest.
    """
    files = sorted((folder / FINALISTS).glob("*.pt"))
    for file in files:
        Checkpoint(file, digest).load()
    return {file.name: file.read_bytes() for file in files}
