"""Keys under which layers carry what belongs to them in their ``metadata``."""

#: The class table, as of ``ClassTable.to_json``.
CLASSES_KEY = "sparseseg_classes"

#: What file an image came from: ``path``, ``series`` (as `open_image` takes it),
#: ``geometry`` (a `Geometry`) and ``files`` (of DICOM, one a plane).
SOURCE_KEY = "sparseseg_source"

#: Of which part of a slide an image is: a `FieldOrigin`.
FIELD_KEY = "sparseseg_field"
