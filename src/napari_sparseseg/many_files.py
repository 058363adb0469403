"""Prediction of many images in files, each into a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sparseseg.errors import ImageError, OutputError, SparseSegError
from napari_sparseseg.files import (
    FILE_SUFFIXES,
    PredictionWritten,
    iter_predict_file,
)
from napari_sparseseg.io.images import stem_of
from napari_sparseseg.io.sources import image_files, list_series
from napari_sparseseg.networks.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_sparseseg.files import FileEvent, PredictionWishes
    from napari_sparseseg.networks.model import SegmentationModel


@dataclass(frozen=True, slots=True)
class ImageJob:
    """An image, and where its labels go.

    Attributes
    ----------
    image
        As `predict_file` takes it.
    out
        The same.
    series
        Which image of several in the file or folder.
    um_per_px
        Pixel size where the file has no say.
    """

    image: Path
    out: Path
    series: str | None = None
    um_per_px: float | None = None


@dataclass(frozen=True, slots=True)
class ImageFailed:
    """An image could not be predicted; *message* is one sentence."""

    message: str


def jobs_of_folder(images: Path, out: Path, suffix: str) -> list[ImageJob]:
    """List the images of a folder, sorted by name, each with ``OUT/STEM`` + *suffix*.

    Images are files by their suffix, OME-Zarr, and DICOM series: those in the folder,
    or else in folders inside it.

    Raises
    ------
    ImageError
        If there is none, or two would have results of one name.
    OutputError
        If the suffix is none of labels, or *out* is the folder itself.
    """
    if suffix.lower() not in FILE_SUFFIXES:
        raise OutputError(
            f"label maps cannot be written as {suffix or 'files without a suffix'}; "
            f"choose one of {', '.join(FILE_SUFFIXES)}.",
            suffix=suffix,
        )
    if images.resolve() == out.resolve():
        raise OutputError(
            f"the label maps would lie among the images in {images}; choose another "
            "folder for them.",
            path=str(out),
        )
    found: dict[str, ImageJob] = {}
    for stem, path, series in sorted(_inside(images, out)):
        if stem in found:
            raise ImageError(
                f"{found[stem].image.name} and {path.name} would both be predicted as "
                f"{stem}{suffix}; rename one of them.",
                path=str(path),
            )
        found[stem] = ImageJob(path, out / f"{stem}{suffix}", series or None)
    if not found:
        raise ImageError(
            f"there is no image in {images}; give a folder of image files, OME-Zarr or "
            "DICOM series.",
            path=str(images),
        )
    return list(found.values())


def _inside(images: Path, out: Path) -> Iterator[tuple[str, Path, str]]:
    """Give stem, path and series (empty: the only one) of what is in a folder.

    Results of before, in a folder among those of the images, are none of them.
    """
    from napari_sparseseg.io.dicom_series import has_dicom, is_dicom

    files = image_files(images)
    series = [each for each in files if each.is_file() and is_dicom(each)]
    for path in files:
        if path not in series:
            yield stem_of(path), path, ""
    if series:
        yield from _series_of(images, among_files=True)
        return
    for folder in images.iterdir():
        is_result = folder.resolve() == out.resolve()
        if is_result or not folder.is_dir() or folder in files:
            continue
        if has_dicom(folder):
            yield from _series_of(folder)


def _series_of(
    folder: Path, among_files: bool = False
) -> Iterator[tuple[str, Path, str]]:
    """Name series by the folder, but slides of one file among others by the file."""
    found = list_series(folder)
    for each in found:
        if among_files and each.is_slide and len(each.files) == 1:
            yield stem_of(each.files[0]), each.files[0], ""
            continue
        more = f" series {each.number}" if len(found) > 1 else ""
        yield f"{folder.name}{more}", folder, each.uid if more else ""


def iter_predict_images(
    model: SegmentationModel,
    jobs: Sequence[ImageJob],
    wishes: PredictionWishes,
) -> Generator[tuple[int, FileEvent | ImageFailed], None, None]:
    """Predict images one after the other; one that cannot be does not end it.

    What is there already is left as it is, unless *wishes* have ``overwrite``. What was
    begun before is taken up, as `iter_predict_file` has it.

    Yields
    ------
    tuple
        Place in *jobs*, and what happens; the last of each image is PredictionWritten
        or ImageFailed.
    """
    for place, job in enumerate(jobs):
        is_zarr = job.out.name.lower().endswith(".zarr")
        if job.out.exists() and not is_zarr and not wishes.get("overwrite"):
            note = f"{job.out.name} was there already."
            yield place, PredictionWritten((job.out,), note)
            continue
        own: Any = {}
        if job.series is not None:
            own["series"] = job.series
        if job.um_per_px is not None:
            own["um_per_px"] = job.um_per_px
        try:
            for event in iter_predict_file(model, job.image, job.out, **wishes | own):
                yield place, event
        except SparseSegError as error:
            yield place, ImageFailed(str(error))
        except OSError as error:
            yield place, ImageFailed(f"a file cannot be used: {error}.")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            yield (
                place,
                ImageFailed(
                    "the memory does not suffice; ask for smaller tiles, or close "
                    "other programs."
                ),
            )
