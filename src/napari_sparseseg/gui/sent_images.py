"""What the engine was given to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sparseseg.engine.messages import PutImage, RemoveImage
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.gui.planes import um_per_px

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_sparseseg.gui.annotations import Annotations, Pair
    from napari_sparseseg.gui.plane_files import PlaneFiles
    from napari_sparseseg.gui.planes import PlaneKey


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
        self._names: dict[Pair, set[str]] = {}

    def put(self, pair: Pair, planes: Iterable[PlaneKey] | None = None) -> None:
        """Send planes of a pair; None: all that were ever annotated.

        A pair whose pixels cannot be read is refused, with the reason.
        """
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
                    )
                )
                self._names.setdefault(pair, set()).add(name)
        except SparseSegError as error:
            self._annotations.refuse(pair, str(error))

    def take_out(self, pair: Pair) -> None:
        """Take all planes of a pair out of the training."""
        self._files.release(pair)
        for name in sorted(self._names.pop(pair, ())):
            self._send(RemoveImage(name=name))

    def are_only_of(self, pair: Pair) -> bool:
        """Tell whether nothing is left where a pair is taken out."""
        return set(self._names) == {pair}

    def forget(self) -> None:
        """Note that the engine has nothing: it is another one."""
        for pair in self._names:
            self._files.release(pair)
        self._names.clear()
