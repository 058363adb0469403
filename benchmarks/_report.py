"""Results: printed as tables, kept as JSON and text."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from napari_sparseseg.io.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).parent / "results"

#: Columns of a printed page.
WIDTH = 150


def command_line(name: str) -> str:
    """Return the command of this run; of absolute paths only the last part."""
    given = [Path(arg).name if Path(arg).is_absolute() else arg for arg in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{name}", *given])


@dataclass(frozen=True)
class Section:
    """A table and the sentence above it, which may be wider than the table."""

    heading: str
    table: Table


def new_section(heading: str, columns: Iterable[str], left: int = 1) -> Section:
    """Return an empty table whose first *left* columns hold words, all else numbers."""
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return Section(heading, table)


def middle(values: Sequence[float | None], digits: int = 3) -> str:
    """Write the median, and below it the range when there are several values."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{median(known):.{digits}f}"
    if len(known) > 1:
        text += f"\n{min(known):.{digits}f}-{max(known):.{digits}f}"
    return text


def go_on(
    path: Path, settings: dict[str, Any], lists: Sequence[str], *, fresh: bool
) -> dict[str, Any]:
    """Return the results of before, or new ones: *settings*, and empty *lists*.

    Runs of other settings are not mixed: they end the program.
    """
    if fresh or not path.exists():
        return {**settings, **{name: [] for name in lists}}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    different = [key for key, value in settings.items() if content[key] != value]
    if different:
        changes = (f"{content[key]} then, {settings[key]} now" for key in different)
        raise SystemExit(
            f"{path.name} holds runs with another {' and '.join(different)}: "
            f"{'; '.join(changes)}. Start over with --fresh, or name another folder "
            "with --results."
        )
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_text(path, json.dumps(content, indent=1) + "\n")


def publish(path: Path, *parts: Section | str) -> None:
    """Print tables and sentences, and write the same beside the JSON of *path*."""
    console = Console(width=WIDTH, record=True, highlight=False, markup=False)
    for part in parts:
        if isinstance(part, Section):
            console.print(part.heading)
            console.print(part.table)
        else:
            console.print(part)
    lines = console.export_text().splitlines()
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_text(path.with_suffix(".txt"), text)


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda to: _put(to, text))


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
