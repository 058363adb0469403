"""What the document on scaling says of costs is what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks._files_report import FIRST, LAST, sections, write_costs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def content() -> dict[str, Any]:
    """Results of round numbers."""
    run = {
        "workers": 1,
        "threads": 2,
        "chunks": 11,
        "glass": 5,
        "pixels": 11_000_000,
        "seconds": 36.0,
        "seconds_cpu": 60.0,
        "seconds_after_first": 20.0,
        "seconds_of_network": 30.0,
        "seconds_cpu_of_network": 50.0,
        "bytes_before": 500_000_000,
        "bytes_peak": 1_500_000_000,
    }
    both = run | {"workers": 2, "seconds_after_first": 12.5}
    del both["seconds_of_network"], both["seconds_cpu_of_network"]
    made = {"size": 40_000, "scale": 1.0, "tile": 1024, "tissue": 0.08}
    return {
        "command": "python -m benchmarks.files",
        "machine": {
            "processor": "Abacus",
            "cores": 2,
            "usable_cores": 2,
            "torch_threads": 2,
            "gpu": None,
            "system": "Linux",
            "versions": {},
        },
        "open": [0.5, 0.4],
        "large": made | {"runs": [run]},
        "workers": made | {"runs": [run, both]},
    }


def test_costs_replace_those_of_before(tmp_path: Path, content: dict[str, Any]) -> None:
    document = tmp_path / "scaling.md"
    document.write_text(f"above\n{FIRST}\n99 h\n{LAST}\nbelow\n")
    write_costs(content, document)
    write_costs(content, document)
    text = document.read_text()
    assert text.startswith(f"above\n{FIRST}\n")
    assert text.endswith(f"{LAST}\nbelow\n")
    assert "99 h" not in text
    # 10 chunks of 1 Mpx in 20 s; 0.8 beside 0.5 chunks a second; 1000 x 36 s.
    assert "| *speed* | 0.50 Mpx/s |" in text
    assert "| *e* of these two | 0.80 |" in text
    assert "| processor time by that of the network alone | 1.20 |" in text
    assert "= 10.0 h of one, and 20 core-hours" in text
    assert "| 4 | 2.5 h |" in text


def test_a_document_without_a_place_for_them_is_left(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    document = tmp_path / "scaling.md"
    document.write_text("above\n")
    with pytest.raises(SystemExit, match="lacks the lines"):
        write_costs(content, document)
    assert document.read_text() == "above\n"


def test_tables_have_a_row_for_each_run(content: dict[str, Any]) -> None:
    small, large, workers = sections(content)
    assert [len(each.table.rows) for each in (small, large, workers)] == [1, 1, 2]
    assert [*large.table.columns[6].cells] == ["1.20"]
    assert [*workers.table.columns[8].cells] == ["0.50", "0.80"]
