"""Label maps as DICOM segmentations, through highdicom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg import __version__
from napari_sparseseg.annotations.strokes import fit_labels
from napari_sparseseg.errors import LabelError, OutputError, shortened
from napari_sparseseg.io.dicom_series import DICOM_ERRORS, silence
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.itk_labels import TOLERANCE_PX, place_on
from napari_sparseseg.io.named_classes import LabelPainter, check_any
from napari_sparseseg.io.optional import library
from napari_sparseseg.io.volumes import rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.classes import ClassTable, Color, LabelClass
    from napari_sparseseg.io.geometry import Grid
    from napari_sparseseg.io.named_classes import NamedClasses, Overlap

MAKER = "napari-sparseseg"

_WHAT = "DICOM segmentations"

#: Lists of types of segments (PS3.16), and SNOMED's category of each.
_CATEGORIES = (
    ("cid7191", "Tissue"),
    ("cid7192", "AnatomicalStructure"),
    ("cid7196", "SpatialAndRelationalConcept"),
    ("cid7194", "MorphologicallyAbnormalStructure"),
    ("cid7197", "BodySubstance"),
    ("cid7193", "PhysicalObject"),
)

_OTHER_NAMES = {
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "vessel": "bloodvessel",
    "adipose": "adiposetissue",
}


def read_headers(files: Sequence[Path]) -> list[Any]:
    """Read DICOM files but for their pixels.

    Raises
    ------
    OutputError
        If one is missing or no DICOM file.
    """
    pydicom = library("pydicom", "volumes", _WHAT)
    headers = []
    for file in files:
        try:
            silence()
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, *DICOM_ERRORS) as error:
            raise OutputError(
                f"{file} cannot be read, but a DICOM segmentation needs the series it "
                "belongs to; give the complete series.",
                path=str(file),
            ) from error
        # Anonymisers leave it empty, which says as much as leaving it out (PS3.3
        # C.12.1.1.2), but highdicom refuses it.
        if not header.get("SpecificCharacterSet", "ISO_IR 6"):
            del header.SpecificCharacterSet
        headers.append(header)
    return headers


def make_segmentation(
    labels: NDArray[Any],
    classes: ClassTable,
    headers: Sequence[Any],
    geometry: Geometry | None,
    *,
    is_prediction: bool,
) -> Any:
    """Make a binary DICOM segmentation with one segment a class.

    Segments are numbered by ascending class value and labelled with the class names.
    What they are is coded where DICOM has a name for it (see `code_of`). Patient and
    study are those of the series.

    Parameters
    ----------
    labels
        (z, y, x), or (y, x) of one file; uint8 or uint16. 0 = not annotated, which is
        in no segment.
    classes
        Of all values.
    headers
        Of the DICOM files of the series, one a plane, in the order of z; or of the one
        file that has all planes as its frames.
    geometry
        Where the labels lie, if known: it must be where the files are. Of several
        frames in a file it must be known.
    is_prediction
        Whether a model made them, and not a user by hand.

    Returns
    -------
    highdicom.seg.Segmentation
        To be written with ``save_as``.

    Raises
    ------
    OutputError
        If the files do not fit the labels, or a segmentation cannot refer to them.
    """
    planes = labels.reshape(-1, *labels.shape[-2:])
    _check_fit(planes, headers, geometry)
    if not planes.any():
        raise OutputError(
            "Nothing is annotated, but a DICOM segmentation needs at least one pixel "
            "of a class; label something first."
        )
    seg = library("highdicom", "volumes", _WHAT).seg
    uid = library("highdicom", "volumes", _WHAT).UID
    channels = fit_labels(classes.to_channels(planes), len(classes))
    try:
        silence()
        return seg.Segmentation(
            source_images=headers,
            pixel_array=_placed(channels, headers, geometry),
            segmentation_type="BINARY",
            segment_descriptions=[
                _description(number, each, is_prediction)
                for number, each in enumerate(classes, 1)
            ],
            series_instance_uid=uid(),
            series_number=1000,
            sop_instance_uid=uid(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=__version__,
            device_serial_number="0",
            series_description="Segmentation",
        )
    except DICOM_ERRORS as error:
        raise OutputError(
            "The DICOM series lacks what a segmentation must refer to "
            f"({' '.join(str(error).split())}); export to .nii.gz or .nrrd."
        ) from error


def labels_of_segmentation(
    path: Path, grid: Grid, names: NamedClasses, *, name: str, overlap: Overlap
) -> tuple[NDArray[Any], list[str]]:
    """Read a DICOM segmentation onto the pixels of an image.

    Parameters
    ----------
    path
        The file.
    grid
        Of the image: (z, y, x) with a direction; or (y, x) of a slide, of which a
        segmentation must have the same pixels.
    names, name, overlap
        As of `labels_of_structures`.

    Returns
    -------
    tuple
        Labels of the shape of the grid, uint8 or uint16, and sentences for the user.

    Raises
    ------
    LabelError
        If it is damaged, has shares instead of segments, or lies elsewhere than the
        image.
    """
    seg = library("highdicom", "volumes", _WHAT).seg
    try:
        silence()
        segmentation = seg.segread(path)
        own = _geometry_of(segmentation)
        segments = [
            (number, *_name_and_color(segmentation.get_segment_description(number)))
            for number in segmentation.segment_numbers
        ]
    except DICOM_ERRORS as error:
        raise LabelError(
            f"{path} cannot be read as a DICOM segmentation "
            f"({shortened(str(error))}); export it anew from where it came from.",
            path=str(path),
        ) from error
    _check_image(own, grid, name)
    painter = LabelPainter(grid.shape, overlap)
    notes: list[str] = []
    values = []
    for number, segment, color in segments:
        value = names.value(segment, color)
        if value:
            values.append(value)
            placed = _mask_of(segmentation, number, path, own is None)
            if own is not None:
                placed, told = place_on(placed, own, grid, f"'{segment}' of {name}")
                notes += told
            elif placed.shape != grid.shape:
                raise LabelError(
                    f"{name} has {placed.shape} pixels, but the slide {grid.shape}; "
                    "give the slide that was segmented.",
                    shape=placed.shape,
                )
            painter.paint(value, placed != 0)
    check_any(painter.labels, name, values)
    labels, told = painter.finish(name)
    return labels, [*notes, *told]


def _check_image(own: Geometry | None, grid: Grid, name: str) -> None:
    """Refuse a slide for what lies in a patient, and the other way round."""
    if own is None and len(grid.shape) != 2:
        raise LabelError(
            f"{name} lies on a slide, but the image is a volume; give the slide that "
            "was segmented.",
            name=name,
        )
    if own is not None and (grid.geometry.direction is None or len(grid.shape) != 3):
        raise LabelError(
            f"{name} lies in a patient, but of the image it is not known where it "
            "lies; give the DICOM series that was segmented.",
            name=name,
        )


def _check_fit(
    planes: NDArray[Any], headers: Sequence[Any], geometry: Geometry | None
) -> None:
    """Refuse files that are not the planes of the labels, in their order."""
    n_planes = sum(_n_frames(header) for header in headers)
    if n_planes != len(planes):
        raise OutputError(
            f"The labels have {len(planes)} planes, but the DICOM series has "
            f"{n_planes}; give the series they were drawn on.",
            planes=len(planes),
            series=n_planes,
        )
    for index, header in enumerate(headers):
        size = (header.get("Rows"), header.get("Columns"))
        if size != planes.shape[1:]:
            raise OutputError(
                f"The labels have {planes.shape[1:]} pixels a plane, but the DICOM "
                f"series {size}; give the series they were drawn on.",
                shape=planes.shape,
            )
        has_frames = _n_frames(header) > 1
        is_placed = (
            geometry is not None and geometry.direction is not None
            if has_frames
            else "ImagePositionPatient" in header
        )
        if not is_placed or "FrameOfReferenceUID" not in header:
            raise OutputError(
                "The DICOM series does not say where it lies in the patient, as a "
                "segmentation needs it; export to .tif."
            )
        if geometry is not None and geometry.direction is not None and not has_frames:
            _check_place(header, geometry.lengths("mm"), index)


def _n_frames(header: Any) -> int:
    return int(header.get("NumberOfFrames") or 1)


def _placed(
    channels: NDArray[Any], headers: Sequence[Any], geometry: Geometry | None
) -> Any:
    """Return planes of segment numbers as highdicom wants them.

    Frames of a file are in any order, so that the planes come with their places.
    """
    if geometry is None or _n_frames(headers[0]) == 1:
        return channels
    return library("highdicom", "volumes", _WHAT).Volume(
        channels,
        affine=geometry.lengths("mm").affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=headers[0].FrameOfReferenceUID,
    )


def _check_place(header: Any, geometry: Geometry, plane: int) -> None:
    """Refuse a file that does not lie where a plane of the labels does."""
    affine = geometry.affine
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    dy, dx = map(float, header.PixelSpacing)
    first = np.array(header.ImagePositionPatient, float)
    rows, columns = header.Rows - 1, header.Columns - 1
    theirs = [
        first,
        first + column * dy * rows,
        first + row * dx * columns,
    ]
    ours = [
        (affine @ (plane, y, x, 1))[:3] for y, x in ((0, 0), (rows, 0), (0, columns))
    ]
    apart = float(np.abs(np.subtract(theirs, ours)).max())
    # Positions in files are rounded, and planes are never quite evenly spaced.
    if apart > max(TOLERANCE_PX * min(dy, dx), 0.1 * geometry.spacing[0]):
        raise OutputError(
            f"Plane {plane} of the labels lies {apart:.3g} mm away from its file of "
            "the DICOM series; give the series they were drawn on.",
            plane=plane,
        )


def code_of(name: str) -> tuple[Any, Any]:
    """Return category and type of a segment: the codes that a class name stands for.

    Names are looked up in DICOM's lists of what segments may be, whatever the case of
    their letters; "tumour" and "vessel" have other names there. What is in none of them
    is SNOMED's "Tissue".
    https://dicom.nema.org/medical/dicom/current/output/chtml/part16/sect_CID_7150.html

    Returns
    -------
    tuple of pydicom.sr.coding.Code
        Category and type, as Anatomical Structure and Liver.
    """
    codes = library("pydicom.sr.codedict", "volumes", _WHAT).codes
    wanted = _plain(name)
    wanted = _OTHER_NAMES.get(wanted, wanted)
    for group, category in _CATEGORIES:
        concepts = getattr(codes, group).concepts
        for keyword, code in concepts.items():
            if wanted in (_plain(keyword), _plain(code.meaning)):
                return getattr(codes.SCT, category), code
    return codes.SCT.Tissue, codes.SCT.Tissue


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _description(number: int, each: LabelClass, is_prediction: bool) -> Any:
    highdicom = library("highdicom", "volumes", _WHAT)
    codes = library("pydicom.sr.codedict", "volumes", _WHAT).codes
    category, kind = code_of(each.name)
    algorithm: dict[str, Any] = {"algorithm_type": "MANUAL"}
    if is_prediction:
        algorithm = {
            "algorithm_type": "AUTOMATIC",
            "algorithm_identification": highdicom.AlgorithmIdentificationSequence(
                MAKER, codes.DCM.ArtificialIntelligence, __version__
            ),
        }
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=each.name,
        segmented_property_category=category,
        segmented_property_type=kind,
        display_color=highdicom.color.CIELabColor.from_rgb(*each.color),
        **algorithm,
    )


def _geometry_of(segmentation: Any) -> Geometry | None:
    """Return where a segmentation lies in a patient, None where it lies on a slide."""
    if segmentation.is_tiled:
        return None
    volume = segmentation.get_volume_geometry()
    if volume is None:
        raise ValueError("its planes are not evenly spaced")
    affine = np.asarray(volume.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return Geometry(
        ("z", "y", "x"),
        tuple(spacing.tolist()),
        "mm",
        tuple(affine[2::-1, 3].tolist()),
        rows_of((affine[:3, :3] / spacing).T),
    )


def _name_and_color(description: Any) -> tuple[str, Color | None]:
    name = str(description.segment_label).strip()
    stored = description.get("RecommendedDisplayCIELabValue")
    if stored is None:
        return name, None
    color = library("highdicom", "volumes", _WHAT).color.CIELabColor
    red, green, blue = map(int, color.from_dicom_value(stored).to_rgb())
    return name, (red, green, blue)


def _mask_of(
    segmentation: Any, number: int, path: Path, is_on_slide: bool
) -> NDArray[np.uint8]:
    """Return (z, y, x), of a slide (y, x), uint8, 1 where a segment is."""
    options = {
        "segment_numbers": [number],
        "combine_segments": True,
        "relabel": True,
    }
    try:
        if is_on_slide:
            pixels = segmentation.get_total_pixel_matrix(**options)
        else:
            pixels = segmentation.get_volume(**options).array
    except DICOM_ERRORS as error:
        raise LabelError(
            f"Segment {number} of {path} cannot be read as a mask of yes and no "
            f"({shortened(str(error))}); export it anew from where it came from.",
            path=str(path),
        ) from error
    mask: NDArray[np.uint8] = (pixels != 0).astype(np.uint8)
    return mask
