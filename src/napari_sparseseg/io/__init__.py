"""Files in and out."""

from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.io.images import (
    IMAGE_SUFFIXES,
    ImageFile,
    StemMatch,
    list_images,
    match_by_stem,
    read_image,
    read_label_map,
    read_probabilities,
    stem_of,
    write_label_map,
    write_probabilities,
)
from napari_sparseseg.io.sources import (
    ImageSource,
    image_files,
    list_series,
    open_image,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFile",
    "ImageSource",
    "StemMatch",
    "image_files",
    "list_images",
    "list_series",
    "match_by_stem",
    "open_image",
    "read_image",
    "read_label_map",
    "read_probabilities",
    "stem_of",
    "write_atomically",
    "write_label_map",
    "write_probabilities",
]
