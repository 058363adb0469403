"""The images of the training in order: pairs of open layers, and files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari_sparseseg.gui.annotations import Entry, Pair, total_counts
from napari_sparseseg.gui.listed_files import ListedFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari.layers import Image

    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.planes import PlaneKey
    from napari_sparseseg.gui.state import PairRow

    # An entry, by its place in the list, and which of its planes.
    Stop = tuple[int, PlaneKey | None]

NOT_TRAINED = "Scores come while the training runs."
NOT_TICKED = "It is not ticked, so nothing is measured on it."
NOT_LABELLED = "Nothing is labelled in it yet."
ALL_LEARNED = (
    "None of its strokes is held out to be measured on: of each class a fifth of the "
    "strokes on all images is, from five strokes on."
)
LEARNED_WHOLE = (
    "It is learned from as a whole: of dense images one in five is held out to be "
    "measured on, from two on."
)
FIRST, LAST = "This is the first image.", "This is the last image."
EMPTY = "There is no image in the list yet."


class ImageList:
    """What the training is given, in the order that the user sees.

    Parameters
    ----------
    annotations
        Has the pairs of open layers; they take their place here by themselves.
    """

    def __init__(self, annotations: Annotations) -> None:
        self._annotations = annotations
        self._entries: list[Pair | ListedFile] = []
        self._scores: dict[str, float] = {}
        self._file_of: WeakKeyDictionary[Image, ListedFile] = WeakKeyDictionary()
        annotations.other_keys = lambda: {each.key for each in self.entries}

    @property
    def entries(self) -> list[Pair | ListedFile]:
        """All entries, in order."""
        pairs = self._annotations.pairs
        opened = {pair.file: pair for pair in pairs if pair.file is not None}
        found: list[Pair | ListedFile] = []
        for each in self._entries:
            if isinstance(each, ListedFile):
                found.append(opened.get(each, each))
            elif each in pairs:
                found.append(each)
        self._entries = found + [pair for pair in pairs if pair not in found]
        return self._entries

    @property
    def files(self) -> list[ListedFile]:
        """The entries that are not open."""
        return [each for each in self.entries if isinstance(each, ListedFile)]

    @property
    def n_waiting(self) -> int:
        """How many files are still being read."""
        return sum(not each.is_read for each in self.files)

    @property
    def known_files(self) -> list[ListedFile]:
        """The files of all entries, open or not."""
        files = [
            each if isinstance(each, ListedFile) else each.file for each in self.entries
        ]
        return [file for file in files if file is not None]

    def extend(self, files: Iterable[ListedFile]) -> None:
        """Add files at the end; each gets a key that no other entry has."""
        taken = {each.key for each in self.entries}
        for file in files:
            number, file.key = 2, file.name
            while file.key in taken:
                file.key, number = f"{file.name} [{number}]", number + 1
            taken.add(file.key)
            self._entries.append(file)

    def remove(self, file: ListedFile) -> None:
        """Take a file out."""
        self._entries.remove(file)

    def reopen(self, pair: Pair, file: ListedFile) -> None:
        """Let a file take the place of its pair, whose layers are to be closed."""
        place = self.entries.index(pair)
        self._entries[place] = file

    def arrange(self, order: Sequence[Entry]) -> None:
        """Bring entries into an order; others follow."""
        places = {entry: place for place, entry in enumerate(order)}
        self._entries = sorted(
            self.entries, key=lambda each: places.get(each, len(places))
        )

    def expect(self, image: Image, file: ListedFile) -> None:
        """Note that a layer was opened for a file."""
        self._file_of[image] = file

    def file_of(self, image: Image) -> ListedFile | None:
        """Return the file that a layer was opened for, if that is in the list."""
        file = self._file_of.get(image)
        return file if file in self.files else None

    def judge(self) -> list[ListedFile]:
        """Find out which files fit the others; return those that have changed.

        Files have the channels of the first image that is learned from.
        """
        channels = self._annotations.channels_in_use()
        changed = []
        for file in self.files:
            before, file.misfit = file.in_use, ""
            if file.in_use and file.n_channels is not None:
                channels = channels or (file.n_channels, file.name)
                if file.n_channels != channels[0]:
                    file.misfit = (
                        f"{file.name} has {file.n_channels} channel(s), but "
                        f"{channels[1]}, which is learned from, has {channels[0]}; "
                        "train on images of one kind, and untick the others."
                    )
            if file.in_use != before:
                changed.append(file)
        return changed

    def counts(self) -> dict[int, tuple[int, int]]:
        """Return (pixels, strokes) of each annotated value, over all in use."""
        return total_counts(each for each in self.entries if each.in_use)

    def names_with(self, value: int) -> list[str]:
        """Return the names of files in which a class value is labelled."""
        return [
            file.name
            for file in self.files
            if any(value in counts for counts in file.counts.values())
        ]

    # Scores.

    def take_scores(self, scores: Mapping[str, float]) -> None:
        """Show these mean Dice scores, by the name that the engine has for planes."""
        self._scores = dict(scores)

    def rows(self, chosen: Pair | None) -> tuple[PairRow, ...]:
        """Return what the dock shows; *chosen* is worked on."""
        return tuple(
            replace(self._scored(each), is_chosen=each is chosen)
            for each in self.entries
        )

    def _scored(self, entry: Pair | ListedFile) -> PairRow:
        row = entry.row()
        names = [entry.name_of(plane) for plane in entry.annotated_planes]
        scores = [self._scores[name] for name in names if name in self._scores]
        if scores and row.ticked:
            return replace(row, score=sum(scores) / len(scores), no_score="")
        return replace(row, no_score=row.no_score or self._why_no_score(entry, row))

    def _why_no_score(self, entry: Entry, row: PairRow) -> str:
        if row.problem:
            return row.problem
        if not entry.annotated_planes:
            return NOT_LABELLED
        if not entry.ticked:
            return NOT_TICKED
        if not self._scores:
            return NOT_TRAINED
        return LEARNED_WHOLE if entry.kind == "dense" else ALL_LEARNED

    # From one to the next.

    def neighbour(
        self, chosen: Pair | ListedFile | None, plane: PlaneKey | None, step: int
    ) -> Stop | None:
        """Return where the next image is, or the next annotated plane of a volume.

        Parameters
        ----------
        chosen
            The pair that is worked on, or the file that will be.
        plane
            That is shown of it.
        step
            1: the next; -1: the one before.
        """
        entries = self.entries
        if chosen not in entries:
            stops = _stops(entries)
            return (stops[0] if step > 0 else stops[-1]) if stops else None
        here = entries.index(chosen)
        others = [
            (place, other)
            for place, other in _stops(entries)
            if (place - here) * step > 0
            or (place == here and _lies(other, plane, step))
        ]
        return (others[0] if step > 0 else others[-1]) if others else None

    def why_no_step(
        self, chosen: Pair | None, plane: PlaneKey | None
    ) -> tuple[str, str]:
        """Return why there is none before, and none behind; empty where there is."""
        if not self.entries:
            return EMPTY, EMPTY
        before, behind = (
            self.neighbour(chosen, plane, step) is not None for step in (-1, 1)
        )
        return "" if before else FIRST, "" if behind else LAST


def _stops(entries: Sequence[Pair | ListedFile]) -> list[Stop]:
    """Return all places to go to: images, and each annotated plane of volumes."""
    stops: list[Stop] = []
    for place, entry in enumerate(entries):
        if isinstance(entry, ListedFile) and entry.problem:
            continue
        planes = entry.annotated_planes if entry.n_planes else [None]
        stops += [(place, plane) for plane in planes]
    return stops


def _lies(other: PlaneKey | None, plane: PlaneKey | None, step: int) -> bool:
    """Tell whether a plane of the same volume lies in the direction of a step."""
    if other is None or plane is None:
        return False
    return other > plane if step > 0 else other < plane
