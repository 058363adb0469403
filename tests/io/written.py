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
