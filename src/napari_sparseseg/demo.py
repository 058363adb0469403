"""The main job on sample images: strokes in, labels, pictures and scores out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_sparseseg.api import iter_train, predict, save_model
from napari_sparseseg.display import virtual_display
from napari_sparseseg.errors import EngineError
from napari_sparseseg.folders import make_folder
from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.io.images import write_label_map
from napari_sparseseg.io.pictures import overlay, side_by_side
from napari_sparseseg.learning.metrics import Scores, evaluate
from napari_sparseseg.samples import Sample, immunohistochemistry, tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sparseseg.learning.events import TrainingEvent
    from napari_sparseseg.networks.model import SegmentationModel

#: Seeds of the phantom that is learned from and of the one that is only predicted.
LEARNED, UNSEEN = 0, 1

#: What uses the window and takes pictures of it.
JOURNEY = "napari_sparseseg.gui.journey"

#: Seconds after which a journey is given up.
PATIENCE_S = 900


@dataclass(frozen=True, slots=True)
class SampleDone:
    """One sample was learned, predicted and written.

    Attributes
    ----------
    name
        Of the sample.
    picture
        Strokes, prediction and, where it is known, truth side by side.
    scores
        Against the truth, by name of the image; empty where nobody knows the truth.
    model
        What was learned.
    """

    name: str
    picture: Path
    scores: dict[str, Scores]
    model: SegmentationModel


def iter_demo(
    out: Path, seconds: float, seed: int = 0
) -> Iterator[TrainingEvent | SampleDone]:
    """Learn a stained tile and a phantom from their strokes, write what comes out.

    Parameters
    ----------
    out
        Folder for labels, pictures, models and ``scores.json``.
    seconds
        Time to learn each sample.
    seed
        Of every random draw.
    """
    make_folder(out)
    done = []
    for sample, others in (
        (immunohistochemistry(), []),
        (tissue_phantom(LEARNED), [tissue_phantom(UNSEEN)]),
    ):
        model = yield from iter_train(
            sample.image,
            sample.labels,
            classes=sample.classes,
            pixel_size_um=sample.um_per_px,
            seconds=seconds,
            seed=seed,
        )
        done.append(_finish(out, sample, others, model))
        yield done[-1]
    table = {
        name: scores.to_json() for each in done for name, scores in each.scores.items()
    }
    text = json.dumps({"seed": seed, "seconds": seconds, "scores": table}, indent=1)
    write_atomically(out / "scores.json", lambda path: _write_text(path, text))


def _finish(
    out: Path, sample: Sample, others: list[Sample], model: SegmentationModel
) -> SampleDone:
    save_model(model, out / f"{sample.name}.safetensors")
    scores = {}
    rows = []
    for each, name in (
        (sample, sample.name),
        *((other, f"{other.name} (unseen)") for other in others),
    ):
        labels = predict(model, each.image, pixel_size_um=each.um_per_px)
        assert isinstance(labels, np.ndarray)
        write_label_map(out / f"{name}.png", labels, sample.classes, prediction=True)
        if each.truth is not None:
            scores[name] = evaluate({name: labels}, {name: each.truth}, each.classes)
        rows.append(_row(each, labels, with_strokes=each is sample))
    picture = out / f"{sample.name} (picture).png"
    stacked = _stack([*rows])
    write_atomically(picture, lambda path: Image.fromarray(stacked).save(path))
    return SampleDone(sample.name, picture, scores, model)


def _row(
    sample: Sample, labels: NDArray[Any], *, with_strokes: bool
) -> NDArray[np.uint8]:
    pictures, captions = [sample.image], ["image"]
    if with_strokes:
        pictures = [overlay(sample.image, sample.labels, sample.classes, opacity=1)]
        captions = ["strokes"]
    pictures.append(overlay(sample.image, labels, sample.classes))
    captions.append("prediction" if with_strokes else "prediction of an unseen image")
    if sample.truth is not None:
        pictures.append(overlay(sample.image, sample.truth, sample.classes))
        captions.append("truth")
    return side_by_side(pictures, captions, sample.classes)


def _stack(rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    return np.concatenate(padded)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def photograph_window(
    out: Path,
    sample: str = "tissue_phantom",
    validations: int = 3,
    *,
    only: str | None = None,
) -> list[Path]:
    """Use the window on a display of its own, and leave pictures of it.

    It neither sees nor changes the user's settings and strokes.

    Parameters
    ----------
    out
        Folder of the pictures.
    sample
        Key of one of the plugin's samples that has strokes or boxes.
    validations
        How often the prediction is scored on held-out strokes before the last picture.
    only
        Which part of a dock is opened and pictured alone: the choice of
        ``"networks"``, the dock of ``"prediction"``, the ``"list"`` of images, or a
        new ``"field"`` of a slide. Default: none, but the way of a user.

    Returns
    -------
    list of Path
        The pictures, in the order in which they were taken.

    Raises
    ------
    OptionError
        If there is no Xvfb.
    EngineError
        If the window did not get that far.
    """
    make_folder(out)
    with TemporaryDirectory() as place, virtual_display() as display:
        folder = Path(place)
        _run_journey(
            display,
            folder,
            *("--sample", sample, "--validations", str(validations)),
            *(("--only", only) if only else ()),
        )
        pictures = sorted(folder.glob("*.png"))
        return [Path(shutil.move(path, out / path.name)) for path in pictures]


def _run_journey(display: str, folder: Path, *arguments: str) -> None:
    own = {
        f"XDG_{name}_HOME": str(folder / name)
        for name in ("CACHE", "CONFIG", "DATA", "STATE")
    }
    own["TORCH_HOME"] = str(folder / "torch")
    environment = {**os.environ, **own, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
    command = [sys.executable, "-P", "-m", JOURNEY, str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"the window was used for {PATIENCE_S} s without getting to its end; try "
            "again when the machine is less busy."
        ) from error
    if done.returncode != 0:
        told = done.stdout.strip().rpartition("\n")[2]
        raise EngineError(
            f"no pictures of the window were taken: {told or 'it said nothing'} (exit "
            f"code {done.returncode}).",
            output=done.stdout,
        )
