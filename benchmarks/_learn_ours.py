"""Learning with this project: models set aside while it goes on, scored afterwards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks._learn_data import LearnData, read_learn_data, summary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.learning.balancing import Balancing
    from napari_sparseseg.learning.metrics import Scores
    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.model import SegmentationModel, Shown

#: What is otherwise imported on first use; torch's optimisers import ``_dynamo``.
LAZY = (
    ("napari_sparseseg.api", "make_trainer"),
    ("kornia.filters", "gaussian_blur2d"),
    ("skimage.measure", "label"),
    ("torch", "_dynamo"),
)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What could predict at a mark.

    Attributes
    ----------
    mark
        In seconds.
    seconds
        When it was taken: the end of the step during which the mark passed.
    steps
        Mini-batches learned.
    model
        None when there was nothing yet that could predict.
    """

    mark: float
    seconds: float
    steps: int
    model: SegmentationModel | None


@dataclass(frozen=True, eq=False)
class PartResult:
    """How a model, or a part of it, did on the test images, and the seconds it took."""

    scores: Scores
    seconds: float


def run_ours(
    folder: Path,
    labels: str,
    balance: Balancing,
    marks: list[float],
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Learn until the last mark, then score the model of each mark.

    Returns
    -------
    dict
        JSON values: ``ready_s``, the seconds until something could predict, and
        ``marks``, one dictionary each.
    """
    import_all()
    data = read_learn_data(folder, labels)
    ready, snapshots = learn(data, balance, marks, seed, device)
    return {"ready_s": ready, "marks": score_snapshots(data, snapshots, device)}


def import_all() -> None:
    """Import all that learning needs: imports count for nobody."""
    for module, name in LAZY:
        getattr(import_module(module), name)


def learn(
    data: LearnData, balance: Balancing, marks: list[float], seed: int, device: str
) -> tuple[float, list[Snapshot]]:
    """Learn from arrays in memory and set a model aside at each mark.

    Setting aside takes time that does not count.

    Returns
    -------
    tuple
        The seconds until something could predict, and the snapshots by mark.
    """
    from napari_sparseseg.api import make_trainer

    clock = Clock()
    trainer = make_trainer(
        data.images,
        data.labels,
        classes=data.classes,
        balance=balance,
        seed=seed,
        device=device,
    )
    ready: float | None = None
    snapshots: list[Snapshot] = []
    for _ in trainer.run():
        now = clock.seconds()
        passed = [mark for mark in marks[len(snapshots) :] if mark <= now]
        if ready is None:
            ready = now
            snapshots += [Snapshot(mark, now, 0, None) for mark in passed]
        elif passed:
            model = clock.without(trainer)
            snapshots += [Snapshot(mark, now, trainer.steps, model) for mark in passed]
        if len(snapshots) == len(marks):
            break
    assert ready is not None
    return ready, snapshots


class Clock:
    """Counts seconds, but for those in which a model is set aside."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._started

    def without(self, trainer: Trainer) -> SegmentationModel:
        """Take the model of now while the clock stands still."""
        before = time.perf_counter()
        model = trainer.model().to("cpu")
        self._started += time.perf_counter() - before
        return model


def score_snapshots(
    data: LearnData, snapshots: list[Snapshot], device: str
) -> list[dict[str, Any]]:
    """Score head, network and what is shown at each mark."""
    # The head is another one only once or twice, in the first seconds.
    before: SegmentationModel | None = None
    head: PartResult | None = None
    rows: list[dict[str, Any]] = []
    for snapshot in snapshots:
        row: dict[str, Any] = {
            "mark": snapshot.mark,
            "seconds": snapshot.seconds,
            "steps": snapshot.steps,
        }
        if snapshot.model is not None:
            known = head if _have_the_same_head(before, snapshot.model) else None
            results = _results(data, snapshot.model.to(device), known)
            before, head = snapshot.model, results.get("head")
            row |= _row(snapshot.model, results)
        rows.append(row)
    return rows


def _have_the_same_head(
    one: SegmentationModel | None, other: SegmentationModel
) -> bool:
    import torch

    if one is None or "head" not in one.parts or "head" not in other.parts:
        return False
    if one.info.scales["head"] != other.info.scales["head"]:
        return False
    states = (model.parts["head"].state_dict() for model in (one, other))
    pairs = zip(*(state.values() for state in states), strict=True)
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)


def _results(
    data: LearnData, model: SegmentationModel, head: PartResult | None
) -> dict[Shown, PartResult]:
    """Score the parts of a model and what it shows; a *head* known is not redone."""
    wanted: set[Shown] = {*model.parts, model.info.shown}
    return {
        shown: head
        if shown == "head" and head is not None
        else _predict_test(data, model, shown)
        for shown in wanted
    }


def _row(
    model: SegmentationModel, results: Mapping[Shown, PartResult]
) -> dict[str, Any]:
    shown = results[model.info.shown]
    return {
        "shown": model.info.shown,
        "scales": dict(model.info.scales),
        **summary(shown.scores),
        "predict_s": shown.seconds,
        "part_dice": {
            name: results[name].scores.overall_dice for name in sorted(results)
        },
    }


def _predict_test(data: LearnData, model: SegmentationModel, what: Shown) -> PartResult:
    from napari_sparseseg.prediction.predictor import predict_image

    shown = model.showing(what)
    predictions: dict[str, NDArray[Any]] = {}
    started = time.perf_counter()
    for name, image in data.test_images.items():
        predictions[name], _ = predict_image(shown, image)
    seconds = time.perf_counter() - started
    return PartResult(data.score(predictions), seconds)
