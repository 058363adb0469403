"""What was measured of the live loop, as tables."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks._report import middle, new_section

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks._report import Section

#: What predicts, in the order of the tables.
SHOWN = ("head", "network", "both")

#: Times of a repaint that follow each other, and what they are called.
STAGES = {
    "put": "on its way",
    "learned": "learned",
    "asked": "asked",
    "first_tile": "first tile",
    "all_tiles": "all tiles",
    "drawn": "drawn",
}


def stroke_section(window: dict[str, Any]) -> Section:
    """Tell the way from a stroke, or a validation, to the repainted view."""
    section = new_section(
        "In a real window, while training goes on: ms of each stage from the end of a "
        "stroke, or from a validation, to the repainted view of 512 x 512 pixels",
        ["cause", "predicts", "n", *STAGES.values(), "in all", "worst"],
        left=2,
    )
    for cause, name in (("stroke", "strokes"), ("validation", "validations")):
        for shown in SHOWN:
            rows = [each for each in window[name] if each["shown"] == shown]
            if rows:
                section.table.add_row(cause, shown, str(len(rows)), *stages(rows))
    return section


def stages(repaints: Sequence[dict[str, Any]]) -> list[str]:
    """Return the cells of each stage, of all together, and of the slowest."""
    cells, before = [], [0.0] * len(repaints)
    for stage in STAGES:
        if any(each[stage] is None for each in repaints):
            cells.append("-")
            continue
        now = [each[stage] for each in repaints]
        cells.append(ms(end - start for start, end in zip(before, now, strict=True)))
        before = now
    total = [each["drawn"] for each in repaints]
    return [*cells, ms(total), f"{1000 * max(total):.0f}"]


def gap_section(window: dict[str, Any]) -> Section:
    """Tell how long the event loop does not come round."""
    section = new_section(
        "Event loop of that window, by a timer of 5 ms: ms from one tick to the next; "
        "ratio of the 99th percentile to those of the idle window and of one in which "
        "is painted without training",
        [
            "window",
            "ticks",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "longest",
            "to idle",
            "to painting",
        ],
    )
    gaps = window["gaps_ms"]
    for name, found in gaps.items():
        values = [f"{found[at]:.1f}" for at in ("p50", "p90", "p99", "p99.9", "p100")]
        ratios = (
            f"{found['p99'] / gaps[base]['p99']:.2f}" for base in ("idle", "painting")
        )
        section.table.add_row(name, str(found["count"]), *values, *ratios)
    return section


def training_section(window: dict[str, Any]) -> Section:
    """Tell the way from Train to the first overlay."""
    section = new_section(
        "From Train, pressed with an engine that stands, to the prediction of the "
        "current image: seconds",
        ["training", "first tile drawn", "all of the view drawn"],
    )
    first, *others = window["trainings"]
    for name, rows in (("the first", [first]), ("further ones", others)):
        if rows:
            cells = (middle([e[k] for e in rows], 2) for k in ("first_drawn", "drawn"))
            section.table.add_row(name, *cells)
    section.table.add_row(
        "for comparison: window and engine", f"{window['ready_s']:.2f}", "-"
    )
    return section


def tile_section(tiles: dict[str, Any]) -> Section:
    """Tell what a tile into a large layer takes."""
    side, layer = tiles["tile"], tiles["layer"]
    section = new_section(
        f"A tile of {side} x {side} into a label layer of {layer} x {layer}, all of it "
        "on the canvas: ms of the window's time",
        ["way", "n", "written and refreshed", "drawn"],
    )
    for way, runs in tiles["ms"].items():
        cells = (middle([each[i] for each in runs], 1) for i in (0, 1))
        section.table.add_row(way, str(len(runs)), *cells)
    return section


def dock_section(docks: Sequence[dict[str, Any]]) -> Section:
    """Tell what opening the dock takes."""
    section = new_section(
        "Opening a dock in a napari that stands with an image and its labels: ms",
        ["dock", "n", "imported", "built", "shown", "in all"],
    )
    names = {
        "empty": "an empty one, for comparison",
        "first": "Label and train, the first time",
        "second": "Label and train, opened again",
    }
    for key, name in names.items():
        rows = [each[key] for each in docks]
        parts = [[row.get(p, 0.0) for row in rows] for p in ("import", "build", "show")]
        whole = [sum(each) for each in zip(*parts, strict=True)]
        section.table.add_row(
            name, str(len(rows)), *(ms(values) for values in (*parts, whole))
        )
    return section


def engine_section(engines: Sequence[dict[str, Any]]) -> Section:
    """Tell what the engine takes without a window."""
    size = engines[0]["size"]
    section = new_section(
        f"The engine alone, without a window, image of {size} x {size}: ms from a "
        "stroke to its prediction while training goes on; of a prediction while "
        "training goes on, and while it is paused; ratio of the two",
        [
            "device",
            "network",
            "predicts",
            "n",
            "stroke\nlearned",
            "stroke\npredicted",
            "prediction\ntraining",
            "prediction\npaused",
            "ratio",
        ],
        left=3,
    )
    for engine in engines:
        for shown in SHOWN:
            strokes = _of(engine["strokes"], shown)
            learning = _of(engine["predictions_learning"], shown)
            paused = _of(engine["predictions_paused"], shown)
            if not strokes:
                continue
            ratio = "-"
            if learning and paused:
                ratio = f"{_median(learning) / _median(paused):.2f}"
            section.table.add_row(
                engine["device"],
                engine["preset"],
                shown,
                str(len(strokes)),
                ms(each["learned"] for each in strokes),
                ms(each["predicted"] for each in strokes),
                ms(each["predicted"] for each in learning),
                ms(each["predicted"] for each in paused),
                ratio,
            )
    return section


def ms(seconds: Iterable[float]) -> str:
    """Write median and range of seconds in milliseconds."""
    return middle([1000 * each for each in seconds], 0)


def _of(rows: Iterable[dict[str, Any]], shown: str) -> list[dict[str, Any]]:
    return [each for each in rows if each["shown"] == shown]


def _median(rows: Iterable[dict[str, Any]]) -> float:
    return float(median(each["predicted"] for each in rows))
