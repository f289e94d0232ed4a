"""Write a made-up table of this machine, in which ``hwnas profile`` lacks nothing: ``python mobile_table.py FILE``.

It is for a DARTS network at 4 channels, 3 cells and 3x32x32 images, with the stem and the head for large images.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hwnas.cost.fusion import pieces
from hwnas.profiling.protocol import PROTOCOL
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SizedSpace, get_space
from hwnas.tables.io import write_table
from hwnas.tables.schema import Correction
from support.tables import make_table

sized = SizedSpace.named(get_space("darts"), "imagenet-mobile").resized(
    channels=4, depth=3, height=32, width=32, classes=10
)
table, start = make_table(sized, more=pieces(sized.network)), ask(parse_device("cpu"))
runtime = table.runtime.model_copy(update={"version": start.version, "provider": start.provider})
changes = {
    "device": start.device,
    "runtime": runtime,
    "protocol": table.protocol.model_copy(update={"version": PROTOCOL}),
    "correction": {sized.key: Correction(offset_ms=0, scale=1, networks=1)},
}
write_table(Path(sys.argv[1]), table.model_copy(update=changes))
