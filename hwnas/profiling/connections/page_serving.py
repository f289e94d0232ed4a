"""Serve a page for each address that a spec names, print where to open it, and end it with this program."""

from __future__ import annotations

import atexit
import socket
import sys

from hwnas.profiling.connections.page_exchange import log
from hwnas.profiling.connections.page_server import PageServer
from hwnas.runtimes.device_spec import DeviceSpec

PORT = 8201
EVERYWHERE = "0.0.0.0"
LOCAL = ("localhost", "127.0.0.1")
ENDED = (
    "hwnas has ended. You can close this page. To resume an interrupted command, run it again and open the address "
    "that it prints."
)
_servers: dict[tuple[str, int], PageServer] = {}


def serve_page(spec: DeviceSpec) -> PageServer:
    """Return the server of a spec, a new one for its first job. Print its address when no page is open."""
    key = (spec.address or lan_address(), spec.port or PORT)
    if key not in _servers:
        _servers[key] = PageServer(*key)
    server = _servers[key]
    server.use("webgpu" if spec.runtime.name == "webgpu" else "wasm")
    if not server.exchange.opened:
        server.exchange.address = url(server, *key)
        _announce(server.exchange.address, *key)
    return server


@atexit.register
def stop_serving() -> None:
    """End all pages with a last text on each."""
    while _servers:
        _servers.popitem()[1].close(ENDED)


def _announce(where: str, address: str, port: int) -> None:
    """Print the address of a page on standard error, and on a terminal as a QR code, too."""
    through = "in a browser of the same network"
    if address in LOCAL:
        through = f"in the device's browser, through `adb reverse tcp:{port} tcp:{port}` or a tunnel of ssh"
    log(f"open {where} {through}")
    if sys.stderr.isatty() and address not in LOCAL:
        import segno

        segno.make(where, error="l").terminal(out=sys.stderr, compact=True, border=2)


def url(server: PageServer, address: str, port: int) -> str:
    """Return the address of a page."""
    return f"http://{lan_address() if address == EVERYWHERE else address}:{port}/{server.token}/"


def what_to_try(where: str, spec: DeviceSpec) -> str:
    """Return advice for an address that nobody has opened."""
    port = spec.port or PORT
    if spec.address in LOCAL:
        return (
            f"run the same command again and open what it prints on the device: `adb reverse tcp:{port} tcp:{port}` "
            f"(or `ssh -R {port}:localhost:{port} DEVICE`) must run first. It was {where}"
        )
    return (
        f"run the same command again and open what it prints; the device must be in the same network, and no firewall "
        f"here may block port {port}; through USB use --device 'page?host=localhost'. It was {where}"
    )


def lan_address() -> str:
    """Return this machine's address in the local network, as the route to other networks has it; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation, which nobody has
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
