"""What comes back from a session, and goes with the next: at most eight files of 16 MB.

Tables, records and the log are files as they are. The folder of every resumable step is an archive, in parts; of a
finished one only what people read.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from benchmarks.gpu.plan import TABLES, Places
from benchmarks.gpu.records import FILE

MOST_FILES, MOST_BYTES = 8, 15_000_000
READ = (".json", ".jsonl", ".svg", ".txt")  # files of a finished run that come back
NEVER = (".onnx", ".safetensors", ".part")


def keep(places: Places, step: str, finished: bool) -> bool:
    """Put what a step has left into ``places.out``: the tables, and its folder; False where that has no room.

    A step that has not ``finished`` keeps what it resumes from, even if its last file is written.
    """
    for name in TABLES.values():
        if (places.work / name).exists():
            (places.out / name).write_bytes((places.work / name).read_bytes())
    for old in places.out.glob(f"{step}.tar.gz.*"):
        old.unlink()
    if not places.run(step).is_dir():
        return True
    parts = split(archive(places.run(step), finished))
    if len(list(places.out.iterdir())) + len(parts) > MOST_FILES:
        return False
    for number, part in enumerate(parts):
        (places.out / f"{step}.tar.gz.{number:02}").write_bytes(part)
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
    """Put what an earlier session returned where this one continues: records, tables, the folders of its steps."""
    for folder, names in ((places.out, [FILE]), (places.work, TABLES.values())):
        for name in names:
            if (returned / name).exists():
                (folder / name).write_bytes((returned / name).read_bytes())
    for name in sorted({file.name.split(".")[0] for file in returned.glob("*.tar.gz.*")}):
        parts = sorted(returned.glob(f"{name}.tar.gz.*"))
        content = b"".join(part.read_bytes() for part in parts)
        places.run(name).mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(places.run(name), filter="data")
