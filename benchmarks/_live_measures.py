"""What is measured in one window, from its opening to its end."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._live_window import GapProbe, Painter, live_window, run_loop, wait_for
from napari_sparseseg.engine.messages import HeadFitted, Validated

if TYPE_CHECKING:
    from benchmarks._live_window import LiveWindow

#: Between two strokes of one who paints on.
PAUSE_S = 0.5

#: Percentiles of gaps that are kept.
PERCENTILES = (50, 90, 99, 99.9, 100)


def measure_window(
    size: int, device: str, n_strokes: int, n_trainings: int, gap_s: float
) -> dict[str, Any]:
    """Measure gaps, strokes, validations and starts of trainings.

    Parameters
    ----------
    size
        Side of the image in pixels.
    device
        That the engine computes on.
    n_strokes
        Strokes, and validations of the network, that are measured.
    n_trainings
        Trainings that are started, one after the other, in the same engine.
    gap_s
        Seconds for which the event loop is watched in each state.

    Returns
    -------
    dict
        JSON values.
    """
    started = time.perf_counter()
    with live_window(size, device) as window:
        ready_s = time.perf_counter() - started
        probe, painter = GapProbe(), Painter(window)
        gaps = {"idle": summary(probe.run(gap_s))}
        gaps["painting"] = summary(watch_painting(probe, painter, gap_s))
        run_loop(1.0)
        starts = [start_training(window)]
        tell("first training")
        strokes = measure_strokes(window, painter, n_strokes)
        tell("strokes")
        gaps["training and painting"] = summary(watch_painting(probe, painter, gap_s))
        gaps["training"] = summary(probe.run(gap_s))
        tell("gaps")
        validations = measure_validations(window, n_strokes)
        tell("validations")
        if window.state.shown != "head":
            strokes += measure_strokes(window, painter, n_strokes)
            tell("strokes with the network")
        window.stop()
        for _ in range(n_trainings - 1):
            starts.append(start_training(window))
            window.settle()
            window.stop()
        tell("trainings")
        gaps["idle again"] = summary(probe.run(gap_s))
        return {
            "size": size,
            "device": window.state.device,
            "renderer": window.renderer(),
            "ready_s": ready_s,
            "torch_in_window": "torch" in sys.modules,
            "gaps_ms": gaps,
            "strokes": strokes,
            "validations": validations,
            "trainings": starts,
        }


def tell(what: str) -> None:
    """Say what is done."""
    print(f"window, {what}: done", flush=True)


def watch_painting(probe: GapProbe, painter: Painter, seconds: float) -> list[float]:
    """Return the gaps while somebody paints on."""
    painter.paint_on(PAUSE_S)
    gaps = probe.run(seconds)
    painter.rest()
    return gaps


def start_training(window: LiveWindow) -> dict[str, Any]:
    """Press Train and wait for the prediction of the view."""
    return asdict(window.repaint(window.train(), HeadFitted))


def measure_strokes(
    window: LiveWindow, painter: Painter, count: int
) -> list[dict[str, Any]]:
    """Paint strokes one by one, each after the last was learned and shown.

    At times that are random to the training.
    """
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        window.settle()
        run_loop(float(random.uniform(0, 0.5)))
        found.append(asdict(window.repaint(painter.stroke(), HeadFitted)))
    return found


def measure_validations(window: LiveWindow, count: int) -> list[dict[str, Any]]:
    """Wait for validations, and for the prediction of what they chose."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        told = wait_for(
            lambda start=start: window.log.first(Validated, start),  # type: ignore[misc]
            "a validation",
        )
        found.append(asdict(window.repaint(told[0], Validated)))
    return found


def summary(gaps_ms: list[float]) -> dict[str, float]:
    """Return how many gaps there were, and percentiles of them in ms."""
    values = np.percentile(gaps_ms, PERCENTILES)
    named = {
        f"p{at:g}": float(value) for at, value in zip(PERCENTILES, values, strict=True)
    }
    return {"count": len(gaps_ms), **named}
