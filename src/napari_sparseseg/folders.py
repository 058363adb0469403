"""The same on folders of files: images and label maps matched by their stems."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.classes import (
    ClassTable,
    find_class_table,
    read_class_table,
)
from napari_sparseseg.annotations.strokes import check_label_map
from napari_sparseseg.api import choose_device, make_trainer, size_warning
from napari_sparseseg.errors import (
    ClassTableError,
    ImageError,
    LabelError,
    OutputError,
)
from napari_sparseseg.io.images import (
    IMAGE_SUFFIXES,
    is_prediction,
    list_images,
    match_by_stem,
    read_image,
    read_label_map,
    read_probabilities,
    stem_of,
    write_label_map,
    write_probabilities,
)
from napari_sparseseg.io.label_pairs import SUFFIXES, read_planes
from napari_sparseseg.learning.distributed import ALONE, Ranks
from napari_sparseseg.learning.metrics import Scores, evaluate
from napari_sparseseg.networks.memory import is_out_of_memory
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.api import TrainingWishes
    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.model import SegmentationModel

#: Folder of the class probabilities, beside the predictions.
PROBABILITIES = "probabilities"


@dataclass
class Inputs:
    """Images and label maps that could be read, and what became of the others.

    Attributes
    ----------
    images, labels
        Arrays by stem.
    pixel_size_um
        Pixel sizes by stem, None when unknown.
    failures
        Sentences on inputs that could not be used.
    notes
        Sentences on inputs that were left out rightly.
    classes
        The class table that was given or found beside the label maps, if any.
    """

    images: dict[str, NDArray[Any]] = field(default_factory=dict)
    labels: dict[str, NDArray[Any]] = field(default_factory=dict)
    pixel_size_um: dict[str, float | None] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: ClassTable | None = None


@dataclass(frozen=True, slots=True)
class FileDone:
    """One image of a folder was predicted, or could not be.

    Attributes
    ----------
    stem
        Of the image.
    done, total
        Images so far, and in all.
    failure
        Why it could not be predicted, or None.
    warning
        What the user should know about the result, or None.
    seconds
        Reading, predicting and writing.
    """

    stem: str
    done: int
    total: int
    failure: str | None
    warning: str | None
    seconds: float


def read_pairs(images: Path, labels: Path, classes: ClassTable | None) -> Inputs:
    """Read images and their label maps; files that cannot be used are named.

    Without *classes* the class tables beside the label maps are read, and become one.
    Of volumes each annotated plane counts as an image, ``STEM z12``.

    Raises
    ------
    SparseSegError
        If there is no pair of an image and a label map at all.
    """
    match = match_by_stem(list_images(images, SUFFIXES), list_images(labels, SUFFIXES))
    inputs = Inputs(classes=classes)
    inputs.notes += [f"{stem}: no label map, left out" for stem in match.images_only]
    inputs.failures += [
        f"{stem}: there is a label map in {labels}, but no image of this name in "
        f"{images}"
        for stem in match.labels_only
    ]
    if not match.pairs:
        raise LabelError(
            f"no image in {images} has a label map of the same name in {labels}; name "
            "them alike, for example a.tif and a.png."
        )
    for stem, image_path, label_path in match.pairs:
        try:
            table = classes or find_class_table(label_path)
            planes = list(read_planes(image_path, label_path, table))
            if not planes:
                raise LabelError(f"no plane of {label_path} is annotated; paint some.")
        except (ImageError, LabelError) as error:
            inputs.failures.append(f"{stem}: {error}")
            continue
        for each in planes:
            name = " ".join([stem, *(f"z{number}" for number in each.at)])
            inputs.images[name], inputs.labels[name] = each.pixels, each.labels
            inputs.pixel_size_um[name] = each.um_per_px
        if classes is None:
            inputs.classes = merge_class_tables(inputs.classes, table)
    return inputs


def merge_class_tables(
    first: ClassTable | None, second: ClassTable | None
) -> ClassTable | None:
    """Return a table with the classes of both, None where there is neither.

    Raises
    ------
    ClassTableError
        If a value stands for two classes.
    """
    if first is None or second is None:
        return first or second
    try:
        return first.merged(second)
    except ClassTableError as error:
        raise ClassTableError(
            f"the class tables beside the label maps do not agree: {str(error)[:-1]}; "
            "give the right one with --classes."
        ) from error


def trainer_of_folders(
    images: Path,
    labels: Path,
    dense_images: Path | None,
    dense_labels: Path | None,
    classes: Path | None,
    wishes: TrainingWishes,
    ranks: Ranks = ALONE,
) -> tuple[Trainer, Inputs]:
    """Return the trainer of folders of images and label maps.

    Parameters
    ----------
    images, labels
        Files or folders.
    dense_images, dense_labels
        Images of which whole regions are labelled, and their label maps.
    classes
        JSON of the class table. Default: the one beside the label maps, or names
        after the values.
    wishes
        All else, as for :func:`~napari_sparseseg.api.train`.
    ranks
        The processes that train together.

    Raises
    ------
    SparseSegError
        If nothing can be learned; the message says why.
    """
    given = None if classes is None else read_class_table(classes)
    sparse = read_pairs(images, labels, given)
    if (dense_images is None) != (dense_labels is None):
        raise LabelError(
            "dense images and dense labels go together, but only one of them is given; "
            "give both folders."
        )
    if dense_images is not None and dense_labels is not None:
        dense = read_pairs(dense_images, dense_labels, given)
        wishes = wishes | {"dense_images": dense.images, "dense_labels": dense.labels}
        sparse.failures += dense.failures
        sparse.notes += dense.notes
        sparse.pixel_size_um |= {
            f"{stem} (dense)": size for stem, size in dense.pixel_size_um.items()
        }
        sparse.classes = merge_class_tables(sparse.classes, dense.classes)
    if not sparse.images and sparse.failures:
        raise LabelError(f"none of the images can be used: {sparse.failures[0]}")
    if sparse.classes is None:
        sparse.notes.append(
            f"there is no class table beside {labels}: classes are named after their "
            "values; --classes FILE names them"
        )
    wishes = wishes | {"classes": sparse.classes, "pixel_size_um": sparse.pixel_size_um}
    return make_trainer(sparse.images, sparse.labels, ranks=ranks, **wishes), sparse


def iter_predict_folder(
    model: SegmentationModel,
    images: Path,
    out: Path,
    *,
    probabilities: bool = False,
    device: str = "auto",
    overwrite: bool = False,
) -> Iterator[FileDone]:
    """Predict each image of a folder and write its label map.

    Writes ``OUT/STEM.png`` with class values, ``OUT/STEM.classes.json``, and with
    *probabilities* ``OUT/probabilities/STEM.tif``, (C, y, x) float32; without, those of
    an earlier prediction are removed. Where *out* holds a file of the same stem that is
    no prediction, such as an annotation or the image itself, nothing is written unless
    *overwrite* asks for it.

    Raises
    ------
    SparseSegError
        If there is no image, or *out* cannot be written to.
    """
    files = list_images(images)
    if not overwrite:
        _spare_other_files(out, files)
    make_folder(out / PROBABILITIES if probabilities else out)
    check_writable(out)
    model = model.to(choose_device(device))
    for done, (stem, path) in enumerate(files.items(), 1):
        started = time.perf_counter()
        failure = warning = None
        probability_path = out / PROBABILITIES / f"{stem}.tif"
        try:
            image = read_image(path)
            warning = size_warning(model, image.um_per_px)
            options = PredictOptions(
                probabilities=probabilities, um_per_px=image.um_per_px
            )
            labels, maps = predict_image(model, image.data, options)
            if _is_probabilities(probability_path):
                # Of an earlier prediction: they do not belong to the new labels.
                probability_path.unlink()
            write_label_map(
                out / f"{stem}.png", labels, model.info.classes, prediction=True
            )
            if maps is not None:
                write_probabilities(probability_path, maps)
        except ImageError as error:
            failure = str(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = "the memory does not suffice; cut the image into smaller ones"
        seconds = time.perf_counter() - started
        yield FileDone(stem, done, len(files), failure, warning, seconds)


@dataclass(frozen=True, slots=True)
class FolderScores:
    """How label maps agree with truth.

    Attributes
    ----------
    scores
        Of what could be scored.
    failures
        Sentences on what could not.
    notes
        Sentences on predictions without truth, and on missing cross-entropy.
    """

    scores: Scores
    failures: list[str]
    notes: list[str]


def evaluate_folders(
    predictions: Path, truth: Path, classes: Path | None
) -> FolderScores:
    """Score predictions against truth.

    The classes are those of the file *classes*, else of a class table beside the
    predictions, else of one beside the truth. Cross-entropy is reported when there are
    probabilities of all predictions in ``PREDICTIONS/probabilities``.

    Raises
    ------
    LabelError
        If nothing can be scored.
    """
    match = match_by_stem(list_images(predictions), list_images(truth))
    if not match.pairs:
        raise LabelError(
            f"no prediction in {predictions} has a truth of the same name in {truth}."
        )
    failures = [f"{stem}: no prediction" for stem in match.labels_only]
    notes = [f"{stem}: no truth, left out" for stem in match.images_only]
    predicted: dict[str, NDArray[Any]] = {}
    true: dict[str, NDArray[Any]] = {}
    paths: dict[str, Path] = {}
    table = None if classes is None else read_class_table(classes)
    for stem, prediction_path, truth_path in match.pairs:
        try:
            table = (
                table
                or find_class_table(prediction_path)
                or find_class_table(truth_path)
            )
            found = read_label_map(prediction_path)
            expected = check_label_map(
                read_label_map(truth_path, table or find_class_table(truth_path)),
                found.shape,
                str(truth_path),
            )
        except (ImageError, LabelError) as error:
            failures.append(f"{stem}: {error}")
            continue
        predicted[stem], true[stem], paths[stem] = found, expected, prediction_path
    if not predicted:
        raise LabelError(f"nothing can be scored: {failures[0]}")
    maps: dict[str, NDArray[Any]] | None = None
    try:
        maps = _probabilities_of(paths, table)
    except (ImageError, LabelError) as error:
        notes.append(f"no cross-entropy: {error}")
    return FolderScores(evaluate(predicted, true, table, maps), failures, notes)


def _probabilities_of(
    predictions: Mapping[str, Path], table: ClassTable | None
) -> dict[str, NDArray[Any]] | None:
    """Read the probabilities beside label maps, channels in order of *table*.

    None unless there are some of each.

    Raises
    ------
    ImageError, LabelError
        If a file is damaged, or its channels are not those of its class table.
    """
    files = {
        stem: path.parent / PROBABILITIES / f"{stem}.tif"
        for stem, path in predictions.items()
    }
    if not all(path.exists() for path in files.values()):
        return None
    maps = {}
    for stem, path in files.items():
        found = read_probabilities(path)
        own = find_class_table(predictions[stem]) or table
        if table is None or own is None or own.values == table.values:
            maps[stem] = found
            continue
        if len(found) != len(own):
            raise LabelError(
                f"{path} has {len(found)} channels, but beside its label map are "
                f"listed the classes {', '.join(own.names)}; predict anew.",
                path=str(path),
            )
        # What a prediction knows nothing of, it gives no probability.
        maps[stem] = np.zeros((len(table), *found.shape[1:]), found.dtype)
        for channel, value in enumerate(table.values):
            if value in own.values:
                maps[stem][channel] = found[own.values.index(value)]
    return maps


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    OutputError
        If that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {path} cannot be made: {error.strerror}; choose another one.",
            path=str(path),
        ) from error


def check_writable(folder: Path) -> None:
    """Raise OutputError unless files can be written to a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise OutputError(
            f"nothing can be written to the folder {folder}: {error.strerror}; choose "
            "another one.",
            path=str(folder),
        ) from error


def images_in_the_way(out: Path, stems: Collection[str]) -> list[Path]:
    """Return files that label maps of these stems would take the place of.

    A label map in another format, say ``a.tif``, counts too: ``a.classes.json``, which
    belongs to it, would be replaced. Predictions and pseudo-masks do not count.
    """
    there = sorted(out.iterdir()) if out.is_dir() else []
    return [
        path
        for path in there
        if path.is_file()
        and path.name.lower().endswith(IMAGE_SUFFIXES)
        and stem_of(path) in stems
        and not is_prediction(path)
    ]


def _spare_other_files(out: Path, images: Mapping[str, Path]) -> None:
    """Raise OutputError if a prediction would replace what is no prediction."""
    others = images_in_the_way(out, images)
    maps = [out / PROBABILITIES / f"{stem}.tif" for stem in images]
    others += [path for path in maps if path.exists() and not _is_probabilities(path)]
    if others:
        raise OutputError(
            f"{others[0]} is no prediction, but a prediction of this name would take "
            f"its place{f' and {len(others) - 1} more' if others[1:] else ''}; choose "
            "another folder, or ask for it with --overwrite.",
            paths=[str(path) for path in others],
        )


def _is_probabilities(path: Path) -> bool:
    try:
        read_probabilities(path)
    except ImageError:
        return False
    return True
