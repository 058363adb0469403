"""Which strokes are kept from learning, so that quality can be measured honestly.

Whole strokes are held out, never single pixels: the neighbours of a learned pixel look
almost like it, and would flatter.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.annotations.strokes import find_strokes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

#: Share of the strokes of a class that is held out.
HELD_OUT_SHARE = 0.2

#: With fewer strokes of a class none is held out: each is needed.
FEWEST_STROKES = 5

#: No more strokes of a class than this are held out.
MOST_HELD_OUT = 20

#: Membership of a pixel.
UNLABELLED, LEARNED, HELD_OUT = 0, 1, 2


class HeldOutStrokes:
    """Decides for every stroke of a set of images, once, whether it is held out.

    A stroke keeps its membership while it grows, splits or is merged; what is learned
    is never held out later, unless it is erased and painted again. New strokes of a
    class are drawn so that a fifth of its strokes, over all images, is held out, once
    it has five.

    Attributes
    ----------
    membership
        By image name: (y, x) uint8, ``UNLABELLED``, ``LEARNED`` or ``HELD_OUT``.
    """

    def __init__(self, seed: int) -> None:
        self.membership: dict[str, NDArray[np.uint8]] = {}
        self._random = np.random.default_rng(seed)
        self._strokes: dict[str, dict[int, tuple[int, int]]] = {}

    def update(self, label_maps: Mapping[str, NDArray[np.integer]]) -> None:
        """Take new or changed label maps, (y, x) with 0 = not annotated, by name."""
        found = {name: find_strokes(labels) for name, labels in label_maps.items()}
        undecided: list[tuple[str, int, int]] = []
        members: dict[str, NDArray[np.uint8]] = {}
        for name, strokes in found.items():
            decided = self._decided(name, strokes.ids, len(strokes))
            members[name] = decided
            undecided += [
                (name, int(stroke), int(strokes.class_values[stroke - 1]))
                for stroke in np.nonzero(decided[1:] == UNLABELLED)[0] + 1
            ]
            self._strokes[name] = {}
        for name, strokes in found.items():
            self._count(name, strokes.class_values, members[name][1:])
        for name, stroke in self._draw(undecided):
            members[name][stroke] = HELD_OUT
        for name, strokes in found.items():
            decided = members[name]
            decided[1:][decided[1:] == UNLABELLED] = LEARNED
            self.membership[name] = decided[strokes.ids]
            self._strokes[name] = {}
            self._count(name, strokes.class_values, decided[1:])

    def discard(self, name: str) -> None:
        """Forget an image."""
        self.membership.pop(name, None)
        self._strokes.pop(name, None)

    def hold_out_image(self, name: str, labels: NDArray[np.integer]) -> None:
        """Hold out everything that is annotated in a (densely labelled) image."""
        self.membership[name] = np.where(labels != 0, HELD_OUT, UNLABELLED).astype(
            np.uint8
        )
        self._strokes[name] = {}

    def learn_image(self, name: str, labels: NDArray[np.integer]) -> None:
        """Let everything that is annotated in an image be learned."""
        self.membership[name] = np.where(labels != 0, LEARNED, UNLABELLED).astype(
            np.uint8
        )
        self._strokes[name] = {}

    def release(
        self, name: str, labels: NDArray[np.integer], spared: Collection[int]
    ) -> None:
        """Let the held-out strokes of all classes but the *spared* be learned."""
        held_out = np.flatnonzero(self.membership[name] == HELD_OUT)
        stays = np.isin(labels.ravel()[held_out], list(spared))
        if not stays.all():
            self.restore(name, labels, held_out[stays])

    def restore(
        self, name: str, labels: NDArray[np.integer], held_out: NDArray[np.integer]
    ) -> None:
        """Hold out the strokes with a pixel of flat indices *held_out*, learn the rest.

        Indices at which nothing is annotated any more are left out.
        """
        before = np.zeros(labels.size, dtype=np.uint8)
        before[held_out[held_out < labels.size]] = HELD_OUT
        self.membership[name] = before.reshape(labels.shape)
        strokes = find_strokes(labels)
        decided = self._decided(name, strokes.ids, len(strokes))
        decided[1:][decided[1:] == UNLABELLED] = LEARNED
        self.membership[name] = decided[strokes.ids]
        self._strokes[name] = {}
        self._count(name, strokes.class_values, decided[1:])

    def held_out_strokes(self) -> dict[int, int]:
        """Return the number of held-out strokes by class value."""
        return self._totals(of=1)

    def _totals(self, of: int) -> dict[int, int]:
        totals: Counter[int] = Counter()
        for per_class in self._strokes.values():
            for value, counts in per_class.items():
                totals[value] += counts[of]
        return {value: total for value, total in sorted(totals.items()) if total}

    def _decided(
        self, name: str, ids: NDArray[np.int32], count: int
    ) -> NDArray[np.uint8]:
        """Return the membership of each stroke as far as its pixels had one before."""
        decided = np.zeros(count + 1, dtype=np.uint8)
        before = self.membership.get(name)
        if before is None or before.shape != ids.shape:
            return decided
        annotated = np.nonzero(ids)
        ids, before = ids[annotated], before[annotated]
        for member in (HELD_OUT, LEARNED):  # learned last: it outweighs held out
            decided[ids[before == member]] = member
        return decided

    def _count(
        self, name: str, values: NDArray[np.integer], members: NDArray[np.uint8]
    ) -> None:
        per_class = self._strokes[name]
        for value in np.unique(values):
            mine = members[values == value]
            per_class[int(value)] = (len(mine), int((mine == HELD_OUT).sum()))

    def _draw(
        self, undecided: Iterable[tuple[str, int, int]]
    ) -> Iterable[tuple[str, int]]:
        by_class: dict[int, list[tuple[str, int]]] = {}
        for name, stroke, value in undecided:
            by_class.setdefault(value, []).append((name, stroke))
        totals, held_out = self._totals(of=0), self._totals(of=1)
        for value, strokes in sorted(by_class.items()):
            total = totals[value]
            if total < FEWEST_STROKES:
                continue
            wanted = min(MOST_HELD_OUT, round(total * HELD_OUT_SHARE))
            missing = min(wanted - held_out.get(value, 0), len(strokes))
            chosen = self.permutation(len(strokes))[: max(0, missing)]
            yield from (strokes[i] for i in sorted(chosen))

    def permutation(self, count: int) -> list[int]:
        """Return the numbers below *count* in random order."""
        return [int(i) for i in self._random.permutation(count)]

    def random_state(self) -> dict[str, object]:
        """Return the state of the random draws, JSON values only."""
        state: dict[str, object] = dict(self._random.bit_generator.state)
        return state

    def set_random_state(self, state: dict[str, object]) -> None:
        """Go on drawing from a state of :meth:`random_state`."""
        self._random.bit_generator.state = state
