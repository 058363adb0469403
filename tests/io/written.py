"""Small DICOM series and slides as scanners write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RNG = np.random.default_rng(0)

#: Planes of a series before they are rescaled, and a slide.
STORED = RNG.integers(0, 4096, (6, 8, 10), np.uint16)
RGB = RNG.integers(0, 256, (300, 400, 3), np.uint8)


def write_slice(path: Path, stored: Any, at: float, **tags: Any) -> Path:
    """Write a plane of CT; *at* is its place along z in mm."""
    import pydicom

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = pydicom.uid.CTImageStorage
    data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.SeriesInstanceUID = "1.2.3.4000"
    data.PatientName, data.PatientID = "Muster^Erika", "4711"
    data.Modality = "CT"
    data.SeriesDescription = "Abdomen"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = 0
    data.PixelSpacing = [0.75, 0.5]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [-7, -9, at]
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = stored.tobytes()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, places: Any = (0, 3, 6, 9, 12, 15), **tags: Any) -> Path:
    """Write planes under names that are in no order of their places."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, at in enumerate(places):
        name = f"{(7 * index) % 11}-{tags.get('SeriesInstanceUID', '')}"
        write_slice(folder / name, STORED[index], at, **tags)
    return folder


def write_slide(
    path: Path, *coarser: NDArray[np.uint8], about: str = "|MPP = 0.5"
) -> Path:
    """Write what OpenSlide takes for a slide of Aperio, with coarser levels."""
    with tifffile.TiffWriter(path) as writer:
        for level in (RGB, *coarser):
            writer.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                description=f"Aperio Image Library v12.0.15 {level.shape}{about}",
                metadata=None,
            )
    return path


def write_scn(path: Path, part: tuple[int, int] = (104, 208)) -> Path:
    """Write what OpenSlide takes for a slide of Leica: `RGB` on a larger glass.

    Parameters
    ----------
    path
        The file.
    part
        (y, x) of the first pixel on the glass.
    """
    nm = 250
    coarse = RGB.reshape(75, 4, 100, 4, 3).mean(axis=(1, 3)).round().astype(np.uint8)

    def size(height: int, width: int) -> str:
        return f'sizeX="{width}" sizeY="{height}"'

    dimensions = "".join(
        f'<dimension {size(*level.shape[:2])} r="{number}" ifd="{number}"/>'
        for number, level in enumerate((RGB, coarse))
    )
    text = (
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="" {size(1000 * nm, 1200 * nm)}><image name="">'
        "<creationDate>2026-01-01T00:00:00Z</creationDate>"
        f'<device model="" version=""/><pixels>{dimensions}</pixels>'
        f'<view {size(300 * nm, 400 * nm)} offsetY="{part[0] * nm}" '
        f'offsetX="{part[1] * nm}"/><scanSettings><objectiveSettings>'
        "<objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.5</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image></collection></scn>"
    )
    with tifffile.TiffWriter(path) as writer:
        for number, level in enumerate((RGB, coarse)):
            writer.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                description=None if number else text,
                metadata=None,
                resolution=(1e7 / nm / 4**number,) * 2,
                resolutionunit="CENTIMETER",
            )
    return path
