"""Write a small chain of mobile layers and a made-up table of this machine, in which ``hwnas profile`` lacks nothing.

``python chain_table.py SPACE.yaml TABLE.json``
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hwnas.spaces import SizedSpace, get_space
from hwnas.tables.io import write_table
from support.chains import SMALL
from support.tables import of_this_machine

space, table = map(Path, sys.argv[1:])
space.write_text(SMALL)
write_table(table, of_this_machine(SizedSpace.named(get_space(str(space)))))
