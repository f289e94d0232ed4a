"""A stand-in for adb's server with phones, to which the real adb client connects.

It speaks the part of the protocol between client and server that hwnas needs: listing devices, pushing files, and the
shell of old phones, which reports no exit codes. A phone's files are in a folder of this machine, and its commands run
in this machine's shell, with stand-ins for Android's own.
"""

from __future__ import annotations

import os
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = 41  # of the protocol; a client of another one would end the server and start its own
PROPERTIES = {
    "ro.product.manufacturer": "Maker",
    "ro.product.model": "Phone 1",
    "ro.soc.model": "SoC 2",
    "ro.build.version.release": "14",
    "ro.product.cpu.abi": "arm64-v8a",
}
COMMANDS = {
    "getprop": "case $1 in " + " ".join(f"{name}) echo '{value}';;" for name, value in PROPERTIES.items()) + " esac",
    "nproc": "echo 8",
    "taskset": 'echo "$1" >> "$PHONE/masks"; shift; exec "$@"',
}


class AdbServer(socketserver.ThreadingTCPServer):
    """Phones by serial number with their states; ``folder`` holds the files of all, ``commands`` what ran there."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, folder: Path, phones: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.folder, self.phones = folder, phones
        self.commands: list[tuple[str, str]] = []
        for name, text in COMMANDS.items():
            program = folder / "system" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        for number in range(8):
            frequency = folder / "cpu" / f"cpu{number}" / "cpufreq"
            frequency.mkdir(parents=True, exist_ok=True)
            (frequency / "cpuinfo_max_freq").write_text(f"{2_800_000 if number >= 6 else 1_800_000}\n")
            (frequency / "scaling_governor").write_text("schedutil\n")

    def there(self, path: str) -> str:
        """Return a path of the phone, or a command with such paths, as it is on this machine."""
        moved = path.replace("/data/local/tmp", str(self.folder / "tmp"))
        return moved.replace("/sys/devices/system/cpu", str(self.folder / "cpu"))


class _Connection(socketserver.StreamRequestHandler):
    server: AdbServer

    def handle(self) -> None:
        serial = ""
        while service := self._service():
            if service == "host:version":
                return self._answer(f"{VERSION:04x}")
            if service == "host:devices":
                return self._answer("".join(f"{name}\t{state}\n" for name, state in self.server.phones.items()))
            if service.endswith(":features"):
                return self._answer("")
            if service.startswith(("host:transport:", "host:tport:serial:")):
                serial = service.removeprefix("host:transport:").removeprefix("host:tport:serial:")
                number = struct.pack("<Q", 1) if "tport" in service else b""
                self.wfile.write(b"OKAY" + number)
                continue
            if service.startswith("shell"):
                self.wfile.write(b"OKAY")
                return self._shell(serial, service.partition(":")[2])
            if service == "sync:":
                self.wfile.write(b"OKAY")
                return self._sync()
            why = f"unknown service {service}".encode()
            self.wfile.write(b"FAIL%04x%s" % (len(why), why))
            return None
        return None

    def _service(self) -> str:
        head = self.rfile.read(4)
        return self.rfile.read(int(head, 16)).decode() if len(head) == 4 else ""

    def _answer(self, text: str) -> None:
        self.wfile.write(f"OKAY{len(text):04x}{text}".encode())

    def _shell(self, serial: str, command: str) -> None:
        server = self.server
        server.commands.append((serial, command))
        path = f"{server.folder / 'system'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PHONE": str(server.folder)}
        done = subprocess.run(
            ["sh", "-c", server.there(command)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.wfile.write(done.stdout)

    def _sync(self) -> None:
        file = None
        while head := self.rfile.read(8):
            kind, size = head[:4], struct.unpack("<I", head[4:])[0]
            if kind == b"DONE":
                assert file
                file.close()
                self.wfile.write(b"OKAY" + bytes(4))
            elif kind == b"DATA":
                assert file
                file.write(self.rfile.read(size))
            elif kind in (b"STAT", b"LSTA"):
                self.rfile.read(size)
                self.wfile.write(kind + bytes(12))  # no such file
            elif kind == b"SEND":
                path = Path(self.server.there(self.rfile.read(size).decode().rpartition(",")[0]))
                file = path.open("wb")
            else:  # QUIT
                return


@contextmanager
def adb_server(folder: Path, phones: dict[str, str]) -> Iterator[AdbServer]:
    """Serve phones with these states by serial number, until the block ends."""
    (folder / "tmp").mkdir(parents=True)
    with AdbServer(folder, phones) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
