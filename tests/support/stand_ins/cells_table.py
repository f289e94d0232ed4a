"""Write a made-up table of this machine, in which ``hwnas profile`` lacks nothing.

``python cells_table.py FILE SPACE SETTING``: for a network of a DARTS space at 4 channels, 3 cells and 3x32x32 images,
with the stem and the head of a setting.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hwnas.spaces import SizedSpace, get_space
from hwnas.tables.io import write_table
from support.tables import of_this_machine

file, space, setting = sys.argv[1:]
sizes = {"channels": 4, "depth": 3, "height": 32, "width": 32, "classes": 10}
write_table(Path(file), of_this_machine(SizedSpace.named(get_space(space), setting).resized(**sizes)))
