"""Which predicts: the head, the network, or the mean of both; and how well they do."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sparseseg.learning.held_out import FEWEST_STROKES, HELD_OUT
from napari_sparseseg.learning.parts import finish
from napari_sparseseg.learning.validation import (
    NOISE,
    ScoredPixels,
    confusion_of,
    labelled_blocks,
    probabilities_in_parts,
    score_of,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sparseseg.learning.events import PartScore
    from napari_sparseseg.learning.head_training import FittedHead
    from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
    from napari_sparseseg.networks.model import Shown
    from napari_sparseseg.networks.scoring import ScoringNetwork

    Scores = Mapping[Shown, PartScore | None]
    Confusions = dict[Shown, NDArray[np.int64]]

#: What predicts, in words.
NAMES: dict[Shown, str] = {
    "head": "the quick start predicts",
    "network": "the network predicts",
    "both": "quick start and network predict together",
}

#: Parts that are called otherwise where a user reads of them.
WORDS = {"head": "quick start"}

#: Strokes scored before they were learned that are remembered.
FIRST_LOOKS = 20


class Judge:
    """Scores head and network on strokes that neither has learned.

    These are the held-out strokes; and of classes too rare to hold any out, the latest
    strokes, each scored before it was learned.

    Attributes
    ----------
    first_looks
        Confusion matrices of strokes scored before they were learned.
    by_image
        Mean Dice of head, network and the mean of both, as they were scored last, by
        the name of the image; of those with held-out strokes that were looked at.
    """

    def __init__(self, data: TrainingSet, device: str) -> None:
        self.first_looks: deque[Confusions] = deque(maxlen=FIRST_LOOKS)
        self.by_image: dict[Shown, dict[str, float]] = {}
        self._data = data
        self._device = device
        self._places: list[ScoredPixels] = []
        self._head: Tensor | None = None

    def see(self, head: FittedHead | None) -> None:
        """Take the held-out strokes and the head as they are now."""
        finish(self.see_in_parts(head))

    def see_in_parts(self, head: FittedHead | None) -> Parts[None, None, bool]:
        """Do :meth:`see` with a break between parts; return True at the end.

        Whoever stops in between, as is necessary when the training set changes, leaves
        everything as it was.
        """
        blocks: list[ScoredPixels] = []
        for index, (name, image) in enumerate(self._data.images.items()):
            is_held_out = self._data.held_out.membership[name] == HELD_OUT
            held_out = np.where(is_held_out, image.labels, 0)
            blocks += labelled_blocks(index, *self._data.annotated(held_out))
            yield
        places, probabilities = spread(blocks), None
        if head is not None and head.judged is not None:
            probabilities = yield from self._ask(head.judged, head.scale, places)
        self._places, self._head = places, probabilities
        return True

    def score_head(self) -> PartScore | None:
        """Score the head alone."""
        if self._head is None:
            return None
        confusion = confusion_of(self._head, self._places, len(self._data.classes))
        return self._score("head", confusion)

    def score(self, network: ScoringNetwork, scale: float) -> Scores:
        """Score head, network and the mean of both, as far as they can be scored."""
        return finish(self.score_in_parts(network, scale))

    def score_in_parts(
        self, network: ScoringNetwork, scale: float
    ) -> Parts[None, None, Scores]:
        """Do :meth:`score` with a break between parts; to be given up on a change."""
        probabilities = yield from self._ask(network, scale, self._places)
        confusions = self._confusions(self._head, probabilities, self._places)
        self.by_image = self._scores_by_image(self._head, probabilities)
        return {shown: self._score(shown, each) for shown, each in confusions.items()}

    def look(
        self,
        image: TrainingImage,
        head: FittedHead,
        network: ScoringNetwork,
        scale: float,
    ) -> None:
        """Score the new strokes of rare classes in *image*, which is not yet taken.

        Parameters
        ----------
        image
            The image as it will be; one of the same name and shape is known.
        head, network, scale
            As they are before they learn the new strokes.
        """
        new = self._new_rare_labels(image)
        if not new.any():
            return
        index = list(self._data.images).index(image.name)
        places = spread(labelled_blocks(index, *self._data.annotated(new)))
        self.first_looks.append(
            self._confusions(
                finish(self._ask(head.network, head.scale, places)),
                finish(self._ask(network, scale, places)),
                places,
            )
        )

    def _new_rare_labels(self, image: TrainingImage) -> NDArray[np.integer]:
        before = self._data.images[image.name]
        common = [
            value
            for value, (_, strokes) in self._data.counts().items()
            if strokes >= FEWEST_STROKES
        ]
        known = np.isin(image.labels, self._data.classes.values)
        new = known & (before.labels == 0) & ~np.isin(image.labels, common)
        return np.where(new, image.labels, 0)

    def _ask(
        self, module: ScoringNetwork, scale: float, places: Sequence[ScoredPixels]
    ) -> Parts[None, None, Tensor]:
        """Return the (N, C) class probabilities at places in order of their images."""
        images = list(self._data.images.values())
        found = [torch.zeros(0, len(self._data.classes))]
        for index, mine in groupby(places, lambda place: place.image):
            pixels = yield from self._data.pixels_in_parts(images[index].name, scale)
            own_scale = self._data.scale_of(images[index], scale)
            found.append(
                (
                    yield from probabilities_in_parts(
                        module, pixels.to(self._device), own_scale, list(mine)
                    )
                )
            )
            yield
        return torch.cat(found)

    def _confusions(
        self, head: Tensor | None, network: Tensor, places: Sequence[ScoredPixels]
    ) -> Confusions:
        n_classes = len(self._data.classes)
        found: Confusions = {"network": confusion_of(network, places, n_classes)}
        if head is not None:
            found["head"] = confusion_of(head, places, n_classes)
            both = torch.stack([head, network]).mean(dim=0)
            found["both"] = confusion_of(both, places, n_classes)
        return found

    def _scores_by_image(
        self, head: Tensor | None, network: Tensor
    ) -> dict[Shown, dict[str, float]]:
        """Return the mean Dice on the held-out strokes of each image alone."""
        names, values = list(self._data.images), self._data.classes.values
        found: dict[Shown, dict[str, float]] = {}
        start = 0
        for index, places in groupby(self._places, lambda place: place.image):
            mine = list(places)
            end = start + sum(len(place.channels) for place in mine)
            asked = self._confusions(
                None if head is None else head[start:end], network[start:end], mine
            )
            for shown, confusion in asked.items():
                score = score_of(confusion, values, {})
                if score is not None:
                    found.setdefault(shown, {})[names[index]] = score.overall
            start = end
        return found

    def _score(self, shown: Shown, confusion: NDArray[np.int64]) -> PartScore | None:
        held_out = self._data.held_out.held_out_strokes()
        values = self._data.classes.values
        rare = [i for i, value in enumerate(values) if value not in held_out]
        confusion = confusion.copy()
        for look in self.first_looks:
            confusion[rare] += look[shown][rare]
        return score_of(confusion, values, held_out)


def choose(scores: Scores, head_start: bool, shown: Shown) -> tuple[Shown, str]:
    """Decide what predicts, and say why in one sentence.

    Whatever is best on strokes that neither head nor network has learned; where
    nothing can be compared, what is shown stays. The network alone must be better than
    both by more than noise: held-out strokes lie in images it has seen, and on other
    images it errs where the head does not.

    Parameters
    ----------
    scores
        Of head, network and the mean of both.
    head_start
        Whether there is a head at all.
    shown
        What is shown now.
    """
    if not head_start:
        return "network", "the network predicts, since the quick start is off"
    found = {name: score for name, score in scores.items() if score is not None}
    if "both" not in found:
        return shown, (
            f"{NAMES[shown]}; with {FEWEST_STROKES} strokes of a class, quick "
            "start and network can be compared on held-out strokes"
        )
    best = max(found, key=lambda name: found[name].overall)
    if best == "network" and found["both"].overall >= found["network"].overall - NOISE:
        best = "both"
    listed = ", ".join(
        f"{WORDS.get(name, name)} {found[name].overall:.3f}" for name in NAMES
    )
    return best, f"{NAMES[best]}: Dice on held-out strokes is {listed}"
