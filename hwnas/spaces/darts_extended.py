"""The extended DARTS space of EnTranNAS-DST (Yang et al., CVPR 2021): more operations, any number of inputs a node.

The cells, the network around them and its sizes are those of DARTS. A node has one input or more; derivation keeps any
set of edges (``least_inputs``).

The paper's code was not published, and the list of its further operations could not be found. They are those of NASNet
(Zoph et al., CVPR 2018) that DARTS left out: with the eight of DARTS, all 13 operations of NASNet, ``dil_conv_5x5``
and ``none``. A 1x7 and 7x1 convolution has one ReLU and one batch norm, as in DARTS's code, which defines it
(``conv_7x1_1x7``) but does not offer it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hwnas.spaces.darts import CELL, DARTS, OPERATIONS, build_network, parse_cells

EXTENDED_OPERATIONS = (
    *OPERATIONS,
    "max_pool_5x5",
    "max_pool_7x7",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "conv_3x1_1x3",
    "conv_7x1_1x7",
    "sep_conv_7x7",
)
DARTS_EXTENDED = replace(
    DARTS,
    name="darts-extended",
    operations=EXTENDED_OPERATIONS,
    cells={kind: replace(CELL, least_inputs=1) for kind in DARTS.cells},
    settings={name: DARTS.settings[name] for name in ("search", "cifar", "imagenet-mobile")},
    published_setting=lambda text: "cifar",
    parse_cells=partial(parse_cells, free=True),
    build_network=partial(build_network, operations=EXTENDED_OPERATIONS),
    published={name: DARTS.published[name] for name in ("DARTS_V1", "DARTS_V2")},
)
