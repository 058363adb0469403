"""Keys under which layers carry what belongs to them in their ``metadata``."""

#: The class table, as of ``ClassTable.to_json``.
CLASSES_KEY = "sparseseg_classes"
