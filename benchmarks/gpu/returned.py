"""Files that a session returns and that go with the next one: at most eight of 15 MB, the limits of the transfer.

Tables, records and the log are files as they are. The folder of every resumable step is an archive, in parts; of a
finished one only what people read.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from benchmarks.gpu.plan import TABLES, Places
from benchmarks.gpu.records import FILE, LOG

MOST_FILES, MOST_BYTES = 8, 15_000_000
FIXED = {FILE, LOG, *TABLES.values()}  # these always have room
READ = (".json", ".jsonl", ".svg", ".txt")  # files of a finished run that come back
NEVER = (".onnx", ".safetensors", ".part")


def keep(places: Places, step: str, finished: bool) -> bool:
    """Put what a step has left into ``places.out``: the tables, and its folder.

    Returns False where the folder has no room; what an earlier session returned of it then stays.

    A step that has not ``finished`` keeps what it resumes from, even if its last file is written.
    """
    for name in TABLES.values():
        if (places.work / name).exists():
            (places.out / name).write_bytes((places.work / name).read_bytes())
    if not places.run(step).is_dir():
        return True
    before = {file.name for file in places.out.glob(f"{step}.tar.gz.*")}
    others = FIXED | {file.name for file in places.out.iterdir()} - before
    content = split(archive(places.run(step), finished))
    parts = {f"{step}.tar.gz.{number:02}": part for number, part in enumerate(content)}
    if len(others) + len(parts) > MOST_FILES:
        return False
    for name, part in parts.items():
        (places.out / name).write_bytes(part)
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
    """Put what an earlier session returned where this one continues: tables and the folders of its steps.

    All of it goes to ``places.out`` as well, so that steps which do not run in this session come back again.
    """
    for file in returned.glob("*"):
        for folder in (places.out, places.work) if file.name in TABLES.values() else (places.out,):
            (folder / file.name).write_bytes(file.read_bytes())
    for name in sorted({file.name.split(".")[0] for file in returned.glob("*.tar.gz.*")}):
        parts = sorted(returned.glob(f"{name}.tar.gz.*"))
        content = b"".join(part.read_bytes() for part in parts)
        places.run(name).mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(places.run(name), filter="data")
