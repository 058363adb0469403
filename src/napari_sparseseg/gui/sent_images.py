"""What the engine was given to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.engine.messages import PutImage, RemoveImage
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.gui.planes import um_per_px

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_sparseseg.gui.annotations import Annotations, Entry, Pair
    from napari_sparseseg.gui.listed_files import ListedFile
    from napari_sparseseg.gui.plane_files import PlaneFiles
    from napari_sparseseg.gui.planes import PlaneKey
    from napari_sparseseg.gui.state import Kind


class SentImages:
    """Brings planes of pairs to the engine, and takes them out again.

    Parameters
    ----------
    annotations
        Have the files of the labels; told of pairs whose pixels cannot be used.
    files
        Of the pixels.
    send
        Takes a request to the engine.
    """

    def __init__(
        self,
        annotations: Annotations,
        files: PlaneFiles,
        send: Callable[[object], None],
    ) -> None:
        self._annotations = annotations
        self._files = files
        self._send = send
        self._names: dict[Entry, set[str]] = {}
        self._kinds: dict[Entry, Kind] = {}

    def put_file(self, file: ListedFile) -> None:
        """Send all annotated planes of an image that is not open."""
        self._kinds[file] = file.kind
        for plane, files in file.planes.items():
            name = file.name_of(plane)
            self._send(
                PutImage(
                    name=name,
                    pixels=str(files.pixels),
                    labels=str(files.labels),
                    um_per_px=files.um_per_px,
                    dense=file.kind == "dense",
                )
            )
            self._names.setdefault(file, set()).add(name)

    def hand_over(self, before: Entry, now: Entry) -> None:
        """Note that what was sent of an entry of the list is of another one now."""
        self._files.release(before)
        if before in self._names:
            self._names[now] = self._names.pop(before)
            self._kinds[now] = self._kinds.pop(before)

    def is_of_other_kind(self, entry: Entry) -> bool:
        """Tell whether an entry was sent as sparse and is dense now, or vice versa."""
        return self._kinds.get(entry, entry.kind) != entry.kind

    def put(self, pair: Pair, planes: Iterable[PlaneKey] | None = None) -> None:
        """Send planes of a pair; None: all that were ever annotated.

        A pair whose pixels cannot be read is refused, with the reason.
        """
        self._kinds[pair] = pair.kind
        files = self._annotations.files(pair)
        try:
            for plane in files if planes is None else planes:
                pixels = self._files.pixels(pair.image, plane, pair.level)
                self._files.hold(pair, pair.image, plane, pair.level)
                name = pair.name_of(plane)
                self._send(
                    PutImage(
                        name=name,
                        pixels=str(pixels),
                        labels=str(files[plane]),
                        um_per_px=um_per_px(pair.image, pair.level),
                        dense=pair.kind == "dense",
                    )
                )
                self._names.setdefault(pair, set()).add(name)
        except SparseSegError as error:
            self._annotations.refuse(pair, str(error))

    def take_out(self, entry: Entry) -> None:
        """Take all planes of an entry out of the training."""
        self._files.release(entry)
        self._kinds.pop(entry, None)
        for name in sorted(self._names.pop(entry, ())):
            self._send(RemoveImage(name=name))

    def are_only_of(self, entry: Entry) -> bool:
        """Tell whether nothing is left where an entry is taken out."""
        return set(self._names) == {entry}

    def forget(self) -> None:
        """Note that the engine has nothing: it is another one."""
        for entry in self._names:
            self._files.release(entry)
        self._names.clear()
        self._kinds.clear()
