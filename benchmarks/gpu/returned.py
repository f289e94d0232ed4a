"""Files that a session returns and that go with the next one: at most eight of 15 MB, the limits of the transfer.

Tables, records and the log are files as they are. The folder of every resumable step is an archive, in parts; of a
finished one only what people read.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from benchmarks.gpu import records
from benchmarks.gpu.plan import TABLES, Places
from hwnas.errors import HwnasError
from hwnas.files import write_bytes

MOST_FILES, MOST_BYTES = 8, 15_000_000
FIXED = {records.FILE, records.LOG, *TABLES.values()}  # these always have room
READ = (".json", ".jsonl", ".svg", ".txt")  # files of a finished run that come back
NEVER = (".onnx", ".safetensors", ".part", ".tmp")
ANOTHER = "give another OUT"


def keep(places: Places, step: str, finished: bool) -> bool:
    """Put what a step has left into ``places.out``: the tables, and its folder.

    Returns False where the folder has no room; what an earlier session returned of it then stays.

    A step that has not ``finished`` keeps what it resumes from, even if its last file is written.
    """
    for name in TABLES.values():
        if (places.work / name).exists():
            write_bytes(places.out / name, (places.work / name).read_bytes())
    if not places.run(step).is_dir():
        return True
    before = {file.name for file in places.out.glob(f"{step}.tar.gz.*")}
    others = FIXED | {file.name for file in places.out.iterdir()} - before
    content = split(archive(places.run(step), finished))
    parts = {f"{step}.tar.gz.{number:02}": part for number, part in enumerate(content)}
    if len(others) + len(parts) > MOST_FILES:
        return False
    for name, part in parts.items():
        write_bytes(places.out / name, part)
    for name in before - set(parts):
        (places.out / name).unlink()
    return True


def archive(folder: Path, finished: bool) -> bytes:
    """Return a run's folder as a compressed archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as tar:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            if file.suffix in NEVER or (finished and file.suffix not in READ):
                continue
            tar.add(file, file.relative_to(folder).as_posix())
    return buffer.getvalue()


def split(content: bytes) -> list[bytes]:
    return [content[start : start + MOST_BYTES] for start in range(0, len(content), MOST_BYTES)]


def restore(returned: Path, places: Places) -> None:
    """Put what earlier sessions returned where this one continues, and replace nothing that is newer.

    ``places.out`` gets all of it, so that steps that do not run in this session come back again; if it has records of
    steps, these continue the returned ones and it stays as it is. ``places.work`` gets the tables and the folders of
    steps that it lacks.

    Raises HwnasError where ``places`` are of a session that does not continue the returned one.
    """
    older, here = records.read(returned), records.read(places.out)
    if any(record["step"] != records.SET_UP for record in here):
        if any(record not in here for record in older):
            raise HwnasError(f"{places.out} lacks records that are in {returned}", ANOTHER)
    else:
        if begun := [name for name in archived(returned) if places.run(name).exists()]:
            raise HwnasError(f"{places.run(begun[0])} is of a session without records in {places.out}", ANOTHER)
        for file in returned.glob("*"):
            write_bytes(places.out / file.name, file.read_bytes())
        records.rewrite(places.out, [*older, *(record for record in here if record not in older)])
    for name in TABLES.values():
        if (places.out / name).exists() and not (places.work / name).exists():
            write_bytes(places.work / name, (places.out / name).read_bytes())
    for name in archived(places.out):
        if not places.run(name).exists():
            unpack(places.out, name, places.run(name))


def archived(folder: Path) -> list[str]:
    """Return the steps whose folders are in a folder as archives."""
    return sorted({file.name.split(".")[0] for file in folder.glob("*.tar.gz.*")})


def unpack(source: Path, step: str, folder: Path) -> None:
    """Unpack the archive of a step; ``folder`` is there only once it is complete."""
    content = b"".join(part.read_bytes() for part in sorted(source.glob(f"{step}.tar.gz.*")))
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(folder)
