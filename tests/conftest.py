"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real images with strokes, boxes and truth; skips where it is absent."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("SPARSESEG_DATA") or default)
    if not folder.is_dir():
        pytest.skip(
            f"real images are not at {folder}: set SPARSESEG_DATA to their folder"
        )
    return folder
