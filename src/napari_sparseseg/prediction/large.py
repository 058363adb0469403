"""Images larger than memory: predicted chunk by chunk into a store, and resumable.

A chunk of the store is a tile of the prediction, so the labels are those of
:func:`~napari_sparseseg.prediction.predictor.predict_image` with such tiles. A chunk is
finished when its file is there, as a file gets its name when it is complete: so any
process may be killed at any time, and several may work on one store.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import OutputError
from napari_sparseseg.inputs.resolution import whole, within
from napari_sparseseg.inputs.tiling import cover
from napari_sparseseg.io.atomic import reason_of, write_atomically
from napari_sparseseg.io.label_store import chunk_path, open_labels
from napari_sparseseg.prediction.predictor import (
    Budget,
    PredictOptions,
    TileDone,
    iter_predict,
    label_type,
    parts_on,
)
from napari_sparseseg.prediction.tissue import tissue_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.io.sources import LazyArray
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.prediction.predictor import PartOnImage

#: Gaussians across planes end after that many standard deviations.
TRUNCATE = 3.0


@dataclass(frozen=True)
class ChunkJob:
    """What a process has to know to predict chunks of an image, but for the model.

    Attributes
    ----------
    store
        Folder of the labels, see :mod:`napari_sparseseg.io.label_store`.
    image
        The file or folder of the image.
    series
        Which image of it.
    level
        Which level of it.
    has_planes
        Whether it is (z, y, x) or (z, y, x, c), and not (y, x) or (y, x, c).
    ratio
        Pixel size of the level divided by that of the training images.
    side
        Of a chunk, in pixels.
    smooth_planes
        Standard deviation, in planes, of the Gaussian by which class probabilities are
        averaged across planes; 0: not.
    skips_glass
        Whether chunks of glass are left out; then it is not measured either.
    key
        Of the contents of model and image: what a process has loaded for another one
        is not used.
    """

    store: Path
    image: Path
    series: str | None
    level: int
    has_planes: bool
    ratio: float
    side: int
    smooth_planes: float = 0.0
    skips_glass: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class ChunkRun:
    """Chunks at one place of successive planes.

    Attributes
    ----------
    row, column
        Of the place in the grid of chunks.
    first, stop
        Planes, half-open; 0 and 1 of an image without planes.
    """

    row: int
    column: int
    first: int = 0
    stop: int = 1


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk was predicted and is on disk.

    Attributes
    ----------
    plane
        Of the image, 0 where it has none.
    region
        (y0, x0, y1, x1) in pixels of the level.
    """

    plane: int
    region: Region

    @property
    def n_pixels(self) -> int:
        """Size of the region."""
        y0, x0, y1, x1 = self.region
        return (y1 - y0) * (x1 - x0)


class Plane:
    """A plane of a volume, read by slices.

    Parameters
    ----------
    volume
        (z, y, x) or (z, y, x, c).
    z
        Which plane.
    """

    def __init__(self, volume: LazyArray, z: int) -> None:
        self._volume, self._z = volume, z
        self.shape = volume.shape[1:]

    def __getitem__(self, key: Any) -> Any:
        """Return a part of the pixels."""
        return self._volume[(self._z, *key)]


class ChunkPredictor:
    """Predicts chunks of an image into a store.

    Parameters
    ----------
    model
        On the device that is to work.
    image
        The level to be predicted.
    job
        All else.
    tissue
        Of :func:`~napari_sparseseg.prediction.tissue.tissue_mask`, where glass is left
        out and nothing was measured yet.
    """

    def __init__(
        self,
        model: SegmentationModel,
        image: LazyArray,
        job: ChunkJob,
        tissue: NDArray[np.bool_] | None = None,
    ) -> None:
        self._model, self._image, self._job = model, image, job
        self._tissue = tissue
        self._labels = open_labels(job.store)
        self._budget = Budget(None)
        self._parts: tuple[int, list[PartOnImage]] | None = None
        self.n_planes = image.shape[0] if job.has_planes else 1

    def predict(self, run: ChunkRun) -> Iterator[ChunkDone]:
        """Predict the chunks of a run that are not there yet, and write them.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        region = self._region(run)
        todo = [z for z in range(run.first, run.stop) if not self._is_done(run, z)]
        for z, labels in self._iter_labels(todo, region):
            self._write(z, region, labels)
            yield ChunkDone(z, region)

    def measure(self, plane: int) -> None:
        """Measure what of a plane all of its chunks depend on, and keep it on disk."""
        self._parts_of(plane)

    def _iter_labels(
        self, planes: Sequence[int], region: Region
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        if not self._job.smooth_planes:
            for z in planes:
                yield z, self._labels_of(z, region)
            return
        weights = gaussian_weights(self._job.smooth_planes)
        radius = len(weights) // 2
        kept: dict[int, NDArray[np.float32]] = {}
        for z in planes:
            around = [
                min(max(z + k, 0), self.n_planes - 1)
                for k in range(-radius, radius + 1)
            ]
            kept = {k: maps for k, maps in kept.items() if k in around}
            for k in around:
                if k not in kept:
                    kept[k] = self._probabilities_of(k, region)
            mean = sum(w * kept[k] for w, k in zip(weights, around, strict=True))
            yield z, self._model.info.classes.from_channels(np.argmax(mean, axis=0))

    def _labels_of(self, z: int, region: Region) -> NDArray[Any]:
        labels = np.zeros(_shape(region), label_type(self._model))
        for tile in self._tiles(z, region, probabilities=False):
            labels[within(tile.region, region)] = tile.labels
        return labels

    def _probabilities_of(self, z: int, region: Region) -> NDArray[np.float32]:
        n_classes = len(self._model.info.classes)
        maps = np.zeros((n_classes, *_shape(region)), np.float32)
        for tile in self._tiles(z, region, probabilities=True):
            maps[:, *within(tile.region, region)] = tile.probabilities
        return maps

    def _tiles(
        self, z: int, region: Region, *, probabilities: bool
    ) -> Iterator[TileDone]:
        parts = self._parts_of(z)
        # In working pixels, so that a chunk is one tile.
        tile = math.ceil(self._job.side * max(part.scale for part in parts)) + 1
        options = PredictOptions(tile, probabilities=probabilities, region=region)
        return iter_predict(self._model, self._plane(z), options, self._budget, parts)

    def _plane(self, z: int) -> LazyArray | Plane:
        return Plane(self._image, z) if self._job.has_planes else self._image

    def _parts_of(self, z: int) -> list[PartOnImage]:
        """Return the parts at work on a plane, which know what was measured of it."""
        if self._parts is None or self._parts[0] != z:
            parts = parts_on(self._model, self._plane(z), self._job.ratio)
            self._take_statistics(parts, z)
            self._parts = (z, parts)
        return self._parts[1]

    def _take_statistics(self, parts: Sequence[PartOnImage], z: int) -> None:
        from safetensors.torch import load_file, save

        path = statistics_path(self._job.store, z)
        if path.exists():
            kept = load_file(path)
            for number, part in enumerate(parts):
                n_layers = sum(key.startswith(f"{number}.") for key in kept)
                if not n_layers:
                    continue
                statistics = tuple(
                    kept[f"{number}.{layer}"].to(self._model.device)
                    for layer in range(n_layers)
                )
                if self._job.skips_glass:
                    part.use(statistics)
                else:
                    part.statistics = statistics
            return
        self._measure(parts, z)
        found = {
            f"{number}.{layer}": tensor.cpu().contiguous()
            for number, part in enumerate(parts)
            for layer, tensor in enumerate(part.statistics or ())
        }
        if found:
            content = save(found)
            write_atomically(path, lambda temporary: _write_bytes(temporary, content))

    def _measure(self, parts: Sequence[PartOnImage], z: int) -> None:
        shape = self._plane(z).shape
        if self._tissue is not None:
            share = partial(tissue_share, self._tissue, shape)
            for part in parts:
                part.measure_where(share)
            return
        for region in cover(whole(shape), self._job.side):
            for part in parts:
                part.measure_for(region)

    def _region(self, run: ChunkRun) -> Region:
        height, width = self._plane(run.first).shape[:2]
        y, x = run.row * self._job.side, run.column * self._job.side
        return y, x, min(y + self._job.side, height), min(x + self._job.side, width)

    def _is_done(self, run: ChunkRun, z: int) -> bool:
        planes = (z,) if self._job.has_planes else ()
        return is_finished(self._job.store, (*planes, run.row, run.column))

    def _write(self, z: int, region: Region, labels: NDArray[Any]) -> None:
        y0, x0, y1, x1 = region
        planes = (z,) if self._job.has_planes else ()
        with writing(self._job.store):
            self._labels[(*planes, slice(y0, y1), slice(x0, x1))] = labels


def statistics_path(store: Path, plane: int) -> Path:
    """Return the file of what was measured of a plane."""
    return store / f"statistics-{plane}.safetensors"


def is_finished(store: Path, place: tuple[int, ...]) -> bool:
    """Tell whether a chunk is on disk; an empty file is what a power cut leaves."""
    try:
        return chunk_path(store, place).stat().st_size > 0
    except OSError:
        return False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {reason_of(error)}; the same command then goes "
            "on where it stopped.",
            path=str(path),
        ) from error


def gaussian_weights(sigma: float) -> NDArray[np.float32]:
    """Return the weights of planes, an odd number of them, that sum to 1."""
    radius = max(1, round(TRUNCATE * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def missing_runs(
    job: ChunkJob,
    shape: tuple[int, ...],
    places: Sequence[tuple[int, int]],
    planes_at_once: int,
) -> list[ChunkRun]:
    """Return what is to be done: chunks whose files are not there.

    Parameters
    ----------
    job
        What is predicted.
    shape
        Of the labels, (y, x) or (z, y, x).
    places
        (row, column) in the grid of chunks, of what is to be predicted at all.
    planes_at_once
        Longest run.
    """
    runs: list[ChunkRun] = []
    n_planes = shape[0] if job.has_planes else 1
    for row, column in places:
        for z in range(n_planes):
            place = (z, row, column) if job.has_planes else (row, column)
            if is_finished(job.store, place):
                continue
            last = runs[-1] if runs else None
            if (
                last is not None
                and (last.row, last.column, last.stop) == (row, column, z)
                and z - last.first < planes_at_once
            ):
                runs[-1] = ChunkRun(row, column, last.first, z + 1)
            else:
                runs.append(ChunkRun(row, column, z, z + 1))
    return runs


def _shape(region: Region) -> tuple[int, int]:
    return region[2] - region[0], region[3] - region[1]


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
