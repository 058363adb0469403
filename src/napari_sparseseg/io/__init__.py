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

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFile",
    "StemMatch",
    "list_images",
    "match_by_stem",
    "read_image",
    "read_label_map",
    "read_probabilities",
    "stem_of",
    "write_atomically",
    "write_label_map",
    "write_probabilities",
]
