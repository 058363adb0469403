"""What the engine writes to its log tells where, and names nothing."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from napari_sparseseg.engine.log import (
    Harmless,
    WordlessFormatter,
    only_trace,
    trace_of,
)
from napari_sparseseg.inputs.normalisation import window

PATIENT = "Meier, Hans"

PROGRAM = f"""
import logging, sys, threading, warnings
from napari_sparseseg.engine.log import log_to
log_to(sys.stderr)
warnings.warn("{PATIENT} is odd")
logging.getLogger("tifffile").warning("<%s> is damaged", "{PATIENT}")
logging.getLogger("tifffile").warning("{PATIENT} is damaged")
def fail():
    raise RuntimeError("{PATIENT}")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise KeyError("{PATIENT}")
"""


def test_nothing_is_named_whatever_is_logged_warned_of_or_raised() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "Meier" not in ended.stderr
    lines = ended.stderr.splitlines()
    assert sum("WARNING py.warnings:" in line for line in lines) == 1
    assert sum("WARNING tifffile:" in line for line in lines) == 2
    assert [line for line in lines if line.endswith("Error")] == [
        next(line for line in lines if line.endswith(" RuntimeError")),
        next(line for line in lines if line.endswith(" KeyError")),
    ]


def written(words: object, *values: object, error: Exception | None = None) -> str:
    """Return what is written of a record of this package."""
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(
        "napari_sparseseg.a", logging.ERROR, "/a.py", 7, words, values, info
    )
    record.exc_text = PATIENT  # as another handler leaves it
    return WordlessFormatter().format(record).partition(" ERROR ")[2]


@pytest.mark.parametrize(
    ("words", "values", "expected"),
    [
        ("%s of %d", (PATIENT, 3), " … of 3"),
        ("%s failed", (Harmless("predict"),), " predict failed"),
        (Harmless("predict"), (), " predict"),
        (f"{PATIENT} failed", (), ""),
        ("%d", (PATIENT,), ""),
        ("%(a)s", ({"a": PATIENT},), ""),
        (ValueError(PATIENT), (), ""),
    ],
)
def test_only_own_words_and_harmless_values_are_written(
    words: object, values: tuple[object, ...], expected: str
) -> None:
    assert written(words, *values) == f"napari_sparseseg.a:7{expected}"


def test_of_an_error_its_places_in_this_package_and_its_causes_are_told() -> None:
    with pytest.raises(KeyError) as caught:
        try:
            window(0, -1)
        except Exception as error:
            raise KeyError(PATIENT) from error
    trace = trace_of(caught.value)
    place, kind, last = trace.splitlines()
    assert place.startswith("  napari_sparseseg.inputs.normalisation:")
    assert place.endswith(" in window")
    assert (kind, last) == ("OptionError", "KeyError")
    assert written("%s", 1, error=caught.value) == f"napari_sparseseg.a:7 1\n{trace}"
    spoilt = f"{PATIENT}\n  File {PATIENT}\n{trace}\nKeyError: {PATIENT}"
    assert only_trace(spoilt) == trace
