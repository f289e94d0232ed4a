"""The page of the shipped tables."""

from __future__ import annotations

from pathlib import Path

from support.command import Run


def test_the_page_of_the_tables_that_ship_is_up_to_date(run: Run, tmp_path: Path) -> None:
    tables = Path(__file__).parents[2] / "latency_tables"
    written = run("table", "page", tables, "--out", tmp_path / "TABLES.md")
    assert written.exit_code == 0, written.output
    text = (tmp_path / "TABLES.md").read_text()
    assert text == (tables / "TABLES.md").read_text(), "hwnas table page latency_tables --out latency_tables/TABLES.md"
    assert text.count("| `") == len(list(tables.glob("*.json")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "odd|name.json").write_text("{}")
    assert run("table", "page", tmp_path / "broken", "--out", tmp_path / "page.md").exit_code == 0
    assert "odd\\|name" in (tmp_path / "page.md").read_text()
    assert "not a latency table" in (tmp_path / "page.md").read_text()
