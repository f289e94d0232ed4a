"""Files with several architectures."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.spaces.listing import read_architectures
from support.spaces import ALL_CONV, DARTS, NB201

NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
V1, V2 = DARTS.published["DARTS_V1"], DARTS.published["DARTS_V2"]


@pytest.mark.parametrize(
    "text",
    [
        f"{ALL_CONV}\n{NONE}\n",
        f"# two cells\n{ALL_CONV}\r\n\r\n  {NONE}",
        f"architecture,latency_ms\n{ALL_CONV},1\n{NONE},\n",
        f"\ufeffArchitecture ;ms\n{ALL_CONV};4,5\n\n{NONE};2\n",
        f",arch\n0,{ALL_CONV}\n1,{NONE}\n",
        f"arch\n{ALL_CONV}\n{NONE}\n",
        f"Structure(4 nodes with {ALL_CONV})\nStructure(4 nodes with {NONE})\n",
    ],
)
def test_cells_are_read_in_order(tmp_path: Path, text: str) -> None:
    (tmp_path / "cells.txt").write_text(text, encoding="utf-16" if "#" in text else "utf-8")
    found = [architecture for _, architecture in read_architectures(tmp_path / "cells.txt", NB201)]
    assert found == [NB201.parse(ALL_CONV), NB201.parse(NONE)]


@pytest.mark.parametrize(
    "text",
    [
        f"{V1}\nDARTS_V2\n",
        f"# of the paper\nDARTS_V1 = {V1}\n\nDARTS_V2 = {V2}",
        V1.replace(", (", ",\n (") + "\n" + V2.replace("[", "[\n"),
        f'genotype\n"{V1}"\n"{V2}"\n',
    ],
)
def test_genotypes_can_be_over_several_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "cells.txt").write_text(text)
    found = read_architectures(tmp_path / "cells.txt", DARTS)
    assert [architecture for _, architecture in found] == [DARTS.parse("DARTS_V1"), DARTS.parse("DARTS_V2")]
    assert not any("\n" in written for written, _ in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{ALL_CONV}\n\n{ALL_CONV[:-9]}\n", "cells.txt, line 3: not a NAS-Bench-201 architecture"),
        (f"{ALL_CONV}\nwarp\n", "cells.txt, line 2: not a NAS-Bench-201 architecture: 'warp'"),
        (f"{ALL_CONV} {NONE}\n", "cells.txt, line 1: .* holds 2 architectures"),
        (f"arch,x\n{ALL_CONV},1\nnothing,2\n", "cells.txt, line 3: "),
        ("\n# nothing\n", "cells.txt holds no architecture; write one"),
        ("arch,x\n", "cells.txt holds no architecture; write one"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cells.txt").write_text(text)
    with pytest.raises(HwnasError, match=words):
        read_architectures(tmp_path / "cells.txt", NB201)


def test_a_genotype_that_is_cut_off_is_named_by_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "cells.txt").write_text(f"{V1}\n{V2[:-3]}\n")
    with pytest.raises(HwnasError, match=r"cells.txt, line 2: not a DARTS genotype: .*cut off"):
        read_architectures(tmp_path / "cells.txt", DARTS)
