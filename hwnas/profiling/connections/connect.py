"""Connect to the device of a spec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hwnas.profiling.connections.connection import Connection
from hwnas.profiling.connections.local import local_lines
from hwnas.profiling.connections.page import page_lines
from hwnas.profiling.connections.ssh import ssh_connection
from hwnas.runtimes.device_spec import PAGE, DeviceSpec


@contextmanager
def connect(spec: DeviceSpec, folder: Path) -> Iterator[Connection]:
    """Connect to a device for the jobs in ``folder``. Raises HwnasError when it cannot be reached."""
    if spec.host:
        with ssh_connection(spec, folder) as connection:
            yield connection
    else:
        yield partial(page_lines if spec.hardware == PAGE else local_lines, spec)
