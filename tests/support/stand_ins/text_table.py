"""Write a small text, and a made-up table of this machine for a recurrent cell that ``hwnas profile`` leaves as it is.

``python text_table.py TRAIN.txt TEST.txt TABLE.json``
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hwnas.tables.io import write_table
from support.tables import of_this_machine
from support.text import small_sized, write_text

train, test, table = map(Path, sys.argv[1:])
write_text(train)
write_text(test, lines=20, seed=1)
write_table(table, of_this_machine(small_sized()))
