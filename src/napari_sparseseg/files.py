"""Prediction of an image of any size in a file or folder, into a file or folder.

The labels are written into a store beside the result, chunk by chunk; when all are
there, it becomes the result or is exported to it. So whatever ends a prediction, the
same call goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from napari_sparseseg.api import (
    check_names,
    check_not_negative,
    check_positive,
    check_whole,
    choose_device,
    size_warning,
)
from napari_sparseseg.errors import (
    ClassTableError,
    ImageError,
    OptionError,
    OutputError,
    enumerated,
)
from napari_sparseseg.folders import check_writable, make_folder
from napari_sparseseg.io.atomic import write_folder_atomically
from napari_sparseseg.io.export import ExportOptions, export_in_parts, goes_in_parts
from napari_sparseseg.io.geometry import Field
from napari_sparseseg.io.images import ALL_SUFFIXES, IMAGE_SUFFIXES
from napari_sparseseg.io.label_store import (
    create_label_store,
    finish_label_store,
    open_labels,
)
from napari_sparseseg.io.locks import locked
from napari_sparseseg.io.model_file import model_bytes, save_model
from napari_sparseseg.io.sources import open_image
from napari_sparseseg.prediction.large import (
    ChunkDone,
    ChunkJob,
    ChunkPredictor,
    Plane,
    is_finished,
    missing_runs,
    statistics_path,
    writing,
)
from napari_sparseseg.prediction.objects import (
    MOST_PX,
    WHOLE_PX,
    iter_without_small_objects,
)
from napari_sparseseg.prediction.predictor import (
    SAME_PIXEL_SIZE,
    check_channels,
    label_type,
    parts_on,
    pixel_ratio,
    tile_side,
)
from napari_sparseseg.prediction.tissue import overview_of, tissue_mask, tissue_share

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.io.geometry import Geometry
    from napari_sparseseg.io.sources import ImageSource
    from napari_sparseseg.networks.model import SegmentationModel
    from napari_sparseseg.prediction.cluster import Tls
    from napari_sparseseg.prediction.large import ChunkRun

ZARR_SUFFIX = ".ome.zarr"

#: Suffixes of files that hold one plane, and those that also hold volumes.
PLANE_SUFFIXES = (".geojson", ".png")
FILE_SUFFIXES = (
    *PLANE_SUFFIXES,
    ".nii.gz",
    ".nii",
    ".nrrd",
    ".ome.tif",
    ".ome.tiff",
    ".tif",
    ".tiff",
    ".dcm",
    ZARR_SUFFIX,
)

#: Where a store keeps what is predicted.
OWN_ATTRIBUTES = "napari-sparseseg"

#: What a prediction is known by, and how it is told that it is not the same.
OTHER = {"model": "another model", "image": "another image", "options": "other options"}

#: Of the store in which labels are collected.
UNFINISHED = ".unfinished"

#: Of a copy of it without small objects.
CLEANED = ".cleaned"

#: Of the file that is locked meanwhile, instead of that.
LOCK_SUFFIX = ".lock"

#: Side of a tile in working pixels; a larger one has less halo to its core.
TILE = 1024

#: Chunks have no longer sides in pixels, however coarse the working resolution is.
LONGEST_SIDE = 4096

#: More labels than that are not held in memory: a format that needs it is refused.
MOST_IN_MEMORY = 1 << 29

#: Planes that are smoothed together on a cluster; around them others are needed too.
PLANES_AT_ONCE = 16

#: Parts of an image by which it is recognised: so many along y and x, of that side.
SAMPLES, SAMPLE_PX = 4, 32

#: The model, for workers of a cluster.
MODEL_FILE = "model.safetensors"


class PredictionWishes(TypedDict, total=False):
    """What a prediction of a file can be asked for; every entry may be left out.

    Attributes
    ----------
    series
        Which of several images in the file or folder, as :func:`open_image` takes it.
    um_per_px
        Pixel size in micrometres. Default: what the file says.
    tissue_mask
        Whether chunks without tissue are left out. Default: in 8-bit colour images that
        have a pixel size in micrometres or several levels, as slides do.
    glass
        Name or value of the class of chunks that are left out. Default 0: not
        labelled, as nobody has looked at them.
    smooth_planes
        Standard deviation, in planes, of a Gaussian by which class probabilities of a
        volume are averaged across planes. Default 0: each plane by itself.
    smallest_object
        Objects of fewer pixels of the labels go to what surrounds them, plane by plane,
        see :func:`~napari_sparseseg.prediction.objects.without_small_objects`. Default
        0: none.
    tile
        Side of a tile in working pixels. Default 1024; smaller ones take less memory
        and more time.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    workers
        Processes of this machine that predict. Default 1: this one. More need the extra
        ``cluster``.
    scheduler
        Address of the scheduler of a dask.distributed cluster whose workers predict
        instead; the image and the folder of the result must be theirs too.
    tls
        Certificates for the scheduler.
    overwrite
        Whether a result that is there already is replaced. Default False: only where
        it is a prediction for certain, which only an OME-Zarr tells.
    """

    series: str | None
    um_per_px: float | None
    tissue_mask: bool | None
    glass: str | int
    smooth_planes: float
    smallest_object: int
    tile: int
    device: str
    workers: int
    scheduler: str | None
    tls: Tls | None
    overwrite: bool


@dataclass(frozen=True, slots=True)
class PredictionStarted:
    """It is known what is to be done.

    Attributes
    ----------
    n_chunks
        To be predicted in all.
    n_done
        Of them, finished earlier.
    n_glass
        Left out, since they have no tissue.
    n_pixels
        That are still to be predicted.
    notes
        Sentences that the user should know.
    """

    n_chunks: int
    n_done: int
    n_glass: int
    n_pixels: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PredictionWritten:
    """The result is there.

    Attributes
    ----------
    paths
        Its files.
    note
        What the user should know about them; may be empty.
    """

    paths: tuple[Path, ...]
    note: str = ""


def is_file_format(out: str | Path) -> bool:
    """Tell whether a name is meant for a file, and not for a folder of label maps.

    For one of labels, or another kind of image: that is refused later, and does not
    become a folder unless it is one.
    """
    name = Path(out).name.lower()
    is_other = name.endswith(ALL_SUFFIXES) and not Path(out).is_dir()
    return name.endswith(FILE_SUFFIXES) or is_other


FileEvent = PredictionStarted | ChunkDone | PredictionWritten


def predict_file(
    model: SegmentationModel,
    image: str | Path,
    out: str | Path,
    **wishes: Unpack[PredictionWishes],
) -> tuple[Path, ...]:
    """Label every pixel of an image of any size, into a file.

    Parameters
    ----------
    model
        Of :func:`train` or :func:`load_model`.
    image
        Any file or folder that :func:`open_image` opens. Of a slide the level is taken
        that is just fine enough for the model.
    out
        Its suffix chooses the format: ``.ome.zarr``, ``.ome.tif``, ``.tif``,
        ``.geojson``, ``.png``, ``.nii.gz``, ``.nrrd`` or ``.dcm``. The last four are
        written with all labels in memory, and refused where these are too many.
    **wishes
        See :class:`PredictionWishes`.

    Returns
    -------
    tuple of Path
        The files written.

    Raises
    ------
    SparseSegError
        If the image, the options or the place cannot be used, or the disk is full; the
        same call then goes on where it stopped.
    """
    for event in iter_predict_file(model, image, out, **wishes):
        if isinstance(event, PredictionWritten):
            return event.paths
    raise AssertionError("a prediction ends with its result")


def iter_predict_file(
    model: SegmentationModel,
    image: str | Path,
    out: str | Path,
    **wishes: Unpack[PredictionWishes],
) -> Generator[FileEvent, None, None]:
    """Predict like :func:`predict_file`, telling what happens; to stop, stop asking.

    Yields
    ------
    PredictionStarted, ChunkDone, PredictionWritten
        One, many, one; the last alone where the result is there already.
    """
    check_names(wishes, PredictionWishes, "prediction")
    _check_wishes(wishes)
    source_path, target = Path(image), Path(out)
    _check_suffix(target)
    _check_apart(source_path, target)
    _check_free(target, bool(wishes.get("overwrite")))
    source = _open(source_path, wishes)
    _check_image(model, source, target, wishes)
    make_folder(target.resolve().parent)
    check_writable(target.resolve().parent)
    plan = _plan(model, source, target, wishes)
    with locked(plan.job.store.with_suffix(LOCK_SUFFIX)):
        yield from _iter_plan(plan, target, wishes)


def _iter_plan(
    plan: _Plan, target: Path, wishes: PredictionWishes
) -> Iterator[FileEvent]:
    source = plan.source
    if not wishes.get("overwrite") and _identity_of(target) == plan.identity:
        yield PredictionWritten((target,), f"{target} was there already, and complete.")
        return
    notes = [*source.notes, *plan.prepare()]
    if plan.job.level:
        notes.append(
            f"level {plan.job.level} of {source.path.name} suits the model: pixels of "
            f"the labels are {plan.step_px:g} times as wide as those of the image"
        )
    warning = size_warning(plan.model, source.geometry.um_per_px)
    notes += [] if warning is None else [warning]
    places, n_glass = plan.places()
    planes_at_once = _planes_at_once(wishes, plan.n_planes)
    runs = missing_runs(plan.job, plan.shape, places, planes_at_once)
    n_todo = sum(run.stop - run.first for run in runs)
    n_chunks = len(places) * plan.n_planes
    n_pixels = sum(plan.n_pixels(run) for run in runs)
    yield PredictionStarted(
        n_chunks, n_chunks - n_todo, n_glass, n_pixels, tuple(notes)
    )
    if runs:
        yield from _predict(plan, runs, wishes)
    yield _finish(plan, target)


@dataclass(frozen=True, eq=False)
class _Plan:
    """How an image is predicted, and where to."""

    model: SegmentationModel
    source: ImageSource
    job: ChunkJob
    glass: int
    smallest_object: int
    model_hash: str
    image_hash: str

    @property
    def identity(self) -> dict[str, Any]:
        """By what an unfinished prediction is recognised, as JSON values."""
        job = self.job
        return {
            "model": self.model_hash,
            "image": self.image_hash,
            "options": {
                "series": job.series,
                "level": job.level,
                "ratio": job.ratio,
                "side": job.side,
                "smooth_planes": job.smooth_planes,
                "skips_glass": job.skips_glass,
                "glass": self.glass,
                "smallest_object": self.smallest_object,
            },
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x) or (z, y, x) of the labels."""
        n_axes = len(self.source.geometry.axes)
        return tuple(self.source.levels[self.job.level].shape[:n_axes])

    @property
    def n_planes(self) -> int:
        return self.shape[0] if self.job.has_planes else 1

    @property
    def step_px(self) -> float:
        """Side of a pixel of the level, in pixels of the finest."""
        return _factor(self.source, self.job.level)

    @property
    def geometry(self) -> Geometry:
        """Of the labels."""
        geometry = self.source.geometry
        factors = _factors(self.source, self.job.level)
        return dataclasses.replace(
            geometry,
            spacing=tuple(
                step * n for step, n in zip(geometry.spacing, factors, strict=True)
            ),
            origin=tuple(
                # The centre of a coarse pixel lies between those that it covers.
                start + step * (n - 1) / 2
                for start, step, n in zip(
                    geometry.origin, geometry.spacing, factors, strict=True
                )
            ),
        )

    @cached_property
    def tissue(self) -> NDArray[np.bool_] | None:
        """Where an overview has tissue, None where glass is not left out."""
        if not self.job.skips_glass:
            return None
        return tissue_mask(overview_of(self.source.levels))

    def n_pixels(self, run: ChunkRun) -> int:
        """Return how many pixels a run has."""
        height, width = self.shape[-2:]
        side = self.job.side
        rows = min(side, height - run.row * side)
        columns = min(side, width - run.column * side)
        return rows * columns * (run.stop - run.first)

    def prepare(self) -> list[str]:
        """Make the store, or take up the one that is there.

        Returns
        -------
        list
            Sentences on what became of an earlier one.

        Raises
        ------
        OutputError
            If something else has its name, or it cannot be made.
        """
        store = self.job.store
        notes = []
        if store.exists():
            before = _identity_of(store)
            if before is None:
                raise OutputError(
                    f"{store} is to hold an unfinished prediction, but is something "
                    "else; move it away, or choose another name for the result.",
                    path=str(store),
                )
            identity = self.identity
            differing = [
                words
                for name, words in OTHER.items()
                if before.get(name) != identity[name]
            ]
            if not differing:
                return []
            notes.append(
                f"{store.name} was begun with {' and '.join(differing)}; starting over"
            )
        write_folder_atomically(store, self._make_store)
        return notes

    def _make_store(self, folder: Path) -> None:
        import zarr

        side = self.job.side
        planes = (1,) if self.job.has_planes else ()
        chunks = (*planes, *(min(side, n) for n in self.shape[-2:]))
        create_label_store(folder, self.shape, label_type(self.model), chunks)
        group = zarr.open_group(folder, mode="r+")
        group.attrs[OWN_ATTRIBUTES] = {"prediction": self.identity}

    def make_cleaned(self, folder: Path) -> None:
        """Make a store of the same labels without small objects."""
        self._make_store(folder)
        labels, cleaned = open_labels(self.job.store), open_labels(folder)
        for z in range(self.n_planes):
            plane: Any = Plane(labels, z) if self.job.has_planes else labels
            planes = (z,) if self.job.has_planes else ()
            for region, part in iter_without_small_objects(plane, self.smallest_object):
                y0, x0, y1, x1 = region
                cleaned[(*planes, slice(y0, y1), slice(x0, x1))] = part

    def places(self) -> tuple[list[tuple[int, int]], int]:
        """Return (row, column) of the chunks to be predicted, and how many are glass.

        Chunks of glass get their class, where it is not 0.
        """
        side, (height, width) = self.job.side, self.shape[-2:]
        rows, columns = -(-height // side), -(-width // side)
        places = list(product(range(rows), range(columns)))
        if self.tissue is None:
            return places, 0
        with_tissue: list[tuple[int, int]] = []
        glass: list[tuple[int, int]] = []
        for row, column in places:
            y, x = row * side, column * side
            region = (y, x, min(y + side, height), min(x + side, width))
            share = tissue_share(self.tissue, (height, width), region)
            (with_tissue if share else glass).append((row, column))
        if self.glass:
            self._fill(glass)
        return with_tissue, len(glass)

    def _fill(self, places: Sequence[tuple[int, int]]) -> None:
        labels, side = open_labels(self.job.store), self.job.side
        for row, column in places:
            if not is_finished(self.job.store, (row, column)):
                y, x = row * side, column * side
                with writing(self.job.store):
                    labels[y : y + side, x : x + side] = self.glass


def _plan(
    model: SegmentationModel,
    source: ImageSource,
    target: Path,
    wishes: PredictionWishes,
) -> _Plan:
    level, ratio = choose_level(model, source)
    has_planes = len(source.geometry.axes) == 3
    image = source.levels[level]
    plane_shape = image.shape[1:] if has_planes else image.shape
    tile = tile_side(parts_on(model, image, ratio), wishes.get("tile", TILE))
    model_hash = hashlib.sha256(model_bytes(model)).hexdigest()
    image_hash = image_identity(source, level)
    skips_glass = wishes.get("tissue_mask")
    if skips_glass is None:
        skips_glass = _may_have_glass(source)
    job = ChunkJob(
        store=target.resolve().with_name(target.name + UNFINISHED),
        image=source.path.resolve(),
        series=wishes.get("series"),
        level=level,
        has_planes=has_planes,
        ratio=ratio,
        side=min(tile, LONGEST_SIDE, max(plane_shape[:2])),
        smooth_planes=float(wishes.get("smooth_planes", 0)),
        skips_glass=skips_glass,
        key=model_hash + image_hash,
    )
    glass = _class_value(model, wishes.get("glass", 0))
    smallest = int(wishes.get("smallest_object", 0))
    return _Plan(model, source, job, glass, smallest, model_hash, image_hash)


def choose_level(model: SegmentationModel, source: ImageSource) -> tuple[int, float]:
    """Return the level of an image to be predicted, and its ratio of pixel sizes.

    The coarsest one that is no coarser than the finest working resolution of the
    model: more pixels would be read only to be averaged.

    Returns
    -------
    tuple
        Number of the level, and its pixel size divided by that of the training images;
        where either is not known, the finest level is taken for as fine as these.
    """
    finest = max(scale for _, scale in model.predicting)
    base = pixel_ratio(model, source.geometry.um_per_px)
    ratios = [base * _factor(source, k) for k in range(len(source.levels))]
    fitting = [
        k
        for k, ratio in enumerate(ratios)
        if finest * ratio <= 1 + SAME_PIXEL_SIZE and _has_all_planes(source, k)
    ]
    level = max(fitting, default=0)
    ratio = ratios[level]
    return level, 1.0 if abs(ratio - 1) < SAME_PIXEL_SIZE else ratio


def _factor(source: ImageSource, level: int) -> float:
    """Return how many pixels of the finest level lie along one of *level*."""
    y, x = _factors(source, level)[-2:]
    return math.sqrt(y * x)


def _factors(source: ImageSource, level: int) -> list[float]:
    """Return the same along each axis.

    Whole where the level is what whole squares of pixels give: the part of a square at
    the far edge, which may be left out or filled, makes none wider.
    """
    n_axes = len(source.geometry.axes)
    factors = []
    for fine, coarse in zip(
        source.data.shape[:n_axes], source.levels[level].shape[:n_axes], strict=True
    ):
        whole = round(fine / coarse)
        is_whole = coarse in (fine // whole, -(-fine // whole))
        factors.append(float(whole) if is_whole else fine / coarse)
    return factors


def _has_all_planes(source: ImageSource, level: int) -> bool:
    if len(source.geometry.axes) == 2:
        return True
    return bool(source.levels[level].shape[0] == source.data.shape[0])


def _may_have_glass(source: ImageSource) -> bool:
    is_known = source.geometry.unit != "px" or len(source.levels) > 1
    return _is_brightfield(source) and is_known


def _is_brightfield(source: ImageSource) -> bool:
    return (
        source.is_rgb
        and source.data.dtype == np.uint8
        and len(source.geometry.axes) == 2
    )


def _predict(
    plan: _Plan, runs: Sequence[ChunkRun], wishes: PredictionWishes
) -> Iterator[ChunkDone]:
    """Predict runs in this process, or in others."""
    device = wishes.get("device", "auto")
    address, workers = wishes.get("scheduler"), wishes.get("workers", 1)
    image = plan.source.levels[plan.job.level]
    on_cluster = address is not None or workers > 1
    model = plan.model if on_cluster else plan.model.to(choose_device(device))
    predictor = ChunkPredictor(model, image, plan.job, plan.tissue)
    if not on_cluster:
        for run in runs:
            yield from predictor.predict(run)
        return
    from napari_sparseseg.prediction import cluster

    # Here, so that all workers use the very same numbers.
    for z in range(plan.n_planes):
        predictor.measure(z)
    save_model(plan.model, plan.job.store / MODEL_FILE)
    with cluster.connect(address, workers, wishes.get("tls")) as client:
        yield from cluster.iter_runs(
            client, plan.job, plan.job.store / MODEL_FILE, runs, device
        )


def _finish(plan: _Plan, target: Path) -> PredictionWritten:
    """Turn the store into the result."""
    store, classes = plan.job.store, plan.model.info.classes
    if plan.smallest_object:
        store = store.with_suffix(CLEANED)
        write_folder_atomically(store, plan.make_cleaned)
    options = ExportOptions(
        field=Field(step_px=plan.step_px),
        dicom_files=plan.source.files,
        is_prediction=True,
    )
    written = PredictionWritten((target,))
    if target.name.lower().endswith(ZARR_SUFFIX):
        with writing(target):
            _clear(store, plan.n_planes)
            finish_label_store(store, classes, plan.geometry)
            if target.exists():
                shutil.rmtree(target)
            store.rename(target)
    else:
        export = export_in_parts(
            open_labels(store), target, classes, plan.geometry, options
        )
        written = PredictionWritten(export.paths, export.note)
    for path in {store, plan.job.store}:
        shutil.rmtree(path, ignore_errors=True)
    return written


def _clear(store: Path, n_planes: int) -> None:
    """Remove what was needed only on the way, and what killed processes left."""
    for path in (
        store / MODEL_FILE,
        *(statistics_path(store, z) for z in range(n_planes)),
        *(store / "0").rglob("*.partial"),
    ):
        path.unlink(missing_ok=True)


def _planes_at_once(wishes: PredictionWishes, n_planes: int) -> int:
    if not wishes.get("smooth_planes"):
        return 1
    is_alone = wishes.get("scheduler") is None and wishes.get("workers", 1) == 1
    return n_planes if is_alone else PLANES_AT_ONCE


def _identity_of(store: Path) -> dict[str, Any] | None:
    """Return the identity of a prediction in a store, None where there is none."""
    try:
        content = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
        found = content["attributes"][OWN_ATTRIBUTES]["prediction"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def image_identity(source: ImageSource, level: int) -> str:
    """Return a hash by which an image is recognised when a prediction goes on.

    Of name, sizes and times of its files, and of some pixels; not of its folder, so
    that it may be moved.
    """
    array = source.levels[level]
    path = source.path
    digest = hashlib.sha256(repr((path.name, array.shape, str(array.dtype))).encode())
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            status = file.stat()
            about = (file.name, status.st_size, status.st_mtime_ns)
            digest.update(repr(about).encode())
    n_axes = len(source.geometry.axes)
    planes = [array.shape[0] // 2] if n_axes == 3 else []
    height, width = array.shape[n_axes - 2 : n_axes]
    for y, x in product(_starts(height), _starts(width)):
        part = array[(*planes, slice(y, y + SAMPLE_PX), slice(x, x + SAMPLE_PX))]
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _starts(length: int) -> list[int]:
    return [int(n) for n in np.linspace(0, max(0, length - SAMPLE_PX), SAMPLES)]


def _class_value(model: SegmentationModel, glass: str | int) -> int:
    """Return the value of the class of glass, given by name or value, 0 for none."""
    classes = model.info.classes
    if glass in (0, "0"):
        return 0
    try:
        if isinstance(glass, str) and not glass.isdecimal():
            return classes.by_name(glass).value
        return classes.by_value(int(glass)).value
    except ClassTableError as error:
        raise OptionError(
            f"the class of glass is {glass!r}; expected 0 or one of "
            f"{enumerated(classes.names)}.",
            glass=glass,
        ) from error


def _check_wishes(wishes: PredictionWishes) -> None:
    check_positive("the pixel size in um", wishes.get("um_per_px"))
    check_not_negative("the smoothing across planes", wishes.get("smooth_planes", 0))
    check_whole(
        "the smallest object in pixels", wishes.get("smallest_object", 0), 0, 1 << 24
    )
    check_whole("the side of a tile", wishes.get("tile", TILE), 16, 1 << 16)
    check_whole("the number of workers", wishes.get("workers", 1), 1, 1 << 12)
    if wishes.get("scheduler") is not None and wishes.get("workers", 1) != 1:
        raise OptionError(
            "a scheduler and a number of workers are both given; the scheduler has its "
            "own workers: leave the number out."
        )
    if wishes.get("tls") is not None and wishes.get("scheduler") is None:
        raise OptionError(
            "certificates are given, but no scheduler; give its address, as "
            "tls://host:8786."
        )


def _check_apart(image: Path, out: Path) -> None:
    """Refuse a result in the folder of the image, or the other way round."""
    a, b = image.resolve(), out.resolve()
    if a == b or (a in b.parents and a.is_dir()) or b in a.parents:
        raise OutputError(
            f"the result {out} and the image {image} lie in each other, so one would "
            "change the other; choose another place for the result.",
            path=str(out),
        )


def _open(path: Path, wishes: PredictionWishes) -> ImageSource:
    try:
        return open_image(
            path, series=wishes.get("series"), um_per_px=wishes.get("um_per_px")
        )
    except ImageError as error:
        files = path.iterdir() if path.is_dir() else ()
        if any(each.name.lower().endswith(IMAGE_SUFFIXES) for each in files):
            raise ImageError(
                f"{path} is a folder of images, whose labels go into a folder; give "
                "that a name without a suffix, or give one of the images.",
                path=str(path),
            ) from error
        raise


def _check_suffix(out: Path) -> None:
    if not out.name.lower().endswith(FILE_SUFFIXES):
        raise OutputError(
            f"labels cannot be written as {out.name}; give it one of the suffixes "
            f"{', '.join(FILE_SUFFIXES)}.",
            path=str(out),
        )


def _check_free(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    is_zarr = out.name.lower().endswith(ZARR_SUFFIX)
    if not overwrite and not (is_zarr and _identity_of(out) is not None):
        raise OutputError(
            f"{out} is there already; choose another name, or ask for it to be "
            "replaced.",
            path=str(out),
            option="--overwrite",
        )
    if out.is_dir() != is_zarr:
        raise OutputError(
            f"{out} is a {'folder' if out.is_dir() else 'file'}, and cannot be "
            "replaced; choose another name.",
            path=str(out),
        )


def _check_image(
    model: SegmentationModel,
    source: ImageSource,
    out: Path,
    wishes: PredictionWishes,
) -> None:
    """Say before hours of work what cannot be."""
    n_axes = len(source.geometry.axes)
    name = out.name.lower()
    if n_axes == 3 and name.endswith(PLANE_SUFFIXES):
        raise OutputError(
            f"{out.name} would hold one plane, but {source.name} has "
            f"{source.data.shape[0]}; choose .nii.gz, .nrrd, .ome.tif or .ome.zarr.",
            path=str(out),
        )
    if name.endswith(".dcm") and not source.files:
        raise OutputError(
            f"a DICOM segmentation belongs to a DICOM series, but {source.name} is "
            "none; choose .nii.gz, .nrrd, .ome.tif or .ome.zarr.",
            path=str(out),
        )
    check_channels(model, source.data.shape[1:] if n_axes == 3 else source.data.shape)
    level, _ = choose_level(model, source)
    n_labels = math.prod(source.levels[level].shape[:n_axes])
    fits = name.endswith(ZARR_SUFFIX) or goes_in_parts(name)
    if n_labels > MOST_IN_MEMORY and not fits:
        plane = " or .geojson" if n_axes == 2 else ""
        raise OutputError(
            f"{out.name} would have {n_labels / 1e6:,.0f} million pixels, but more "
            f"than {MOST_IN_MEMORY / 1e6:,.0f} million are written only into formats "
            f"that take them part by part; choose .ome.zarr, .ome.tif{plane}.",
            path=str(out),
        )
    trained = model.info.um_per_px
    if trained is not None and source.geometry.um_per_px is None:
        raise ImageError(
            f"{source.path} does not say how large its pixels are, but the model was "
            f"trained at {trained:g} um per pixel; give the size of its pixels.",
            path=str(source.path),
            option="--um-per-px",
        )
    if wishes.get("smooth_planes") and n_axes == 2:
        raise OptionError(
            f"probabilities are to be smoothed across planes, but {source.name} has "
            "one plane; do not smooth it.",
            option="leave out --smooth-planes",
        )
    n_pixels = math.prod(source.data.shape[n_axes - 2 : n_axes])
    if wishes.get("smallest_object", 0) > MOST_PX and n_pixels > WHOLE_PX:
        raise OptionError(
            f"objects of up to {wishes['smallest_object']} pixels are to go, but in "
            f"planes as large as those of {source.name} only such of up to {MOST_PX} "
            "can; give a smaller number."
        )
    if wishes.get("tissue_mask") and not _is_brightfield(source):
        raise OptionError(
            f"a tissue mask is asked for, but {source.name} is no plane of 8-bit "
            "colours; do without it.",
            option="leave out --tissue-mask",
        )
