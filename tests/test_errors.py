"""What errors say, to whom."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import napari_sparseseg
from napari_sparseseg.cli import with_option
from napari_sparseseg.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(napari_sparseseg.__file__).parent

#: What a dock leads to: its errors are shown there, too.
OF_DOCKS = (
    *("annotations", "engine", "gui", "inputs", "io", "networks", "prediction"),
    *("pseudo_masks", "api.py", "files.py", "many_files.py"),
)

#: Nothing of it is done by a dock.
OF_THE_COMMAND_LINE = ("cluster.py",)

FLAG = re.compile(r"(?<!pip install )(?<![\w-])--[a-z]")


def files() -> Iterator[Path]:
    for name in OF_DOCKS:
        path = SOURCE / name
        found = [path] if path.is_file() else path.rglob("*.py")
        yield from (each for each in found if each.name not in OF_THE_COMMAND_LINE)


def messages(path: Path) -> Iterator[str]:
    """Return the first arguments of what is raised, as far as they are written out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                for part in ast.walk(argument):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_errors_that_docks_show_name_no_option_of_the_command_line() -> None:
    told = [(path.name, text) for path in files() for text in messages(path)]
    assert len(told) > 300
    assert [each for each in told if FLAG.search(each[1])] == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"option": "--um-per-px"},
            "the size is missing; give it (--um-per-px).",
        ),
        ({"path": "a.tif"}, "the size is missing; give it."),
    ],
)
def test_the_command_line_adds_its_option(
    values: dict[str, object], sentence: str
) -> None:
    error = ImageError("the size is missing; give it.", **values)
    assert with_option(error) == sentence
