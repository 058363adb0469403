"""Features of annotated pixels: computed around them only, and kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sparseseg.inputs.tiling import cover, make_tile
from napari_sparseseg.networks.fixed_features import FixedFeatures
from napari_sparseseg.networks.image_statistics import windows_of
from napari_sparseseg.networks.scoring import as_batch

if TYPE_CHECKING:
    from collections.abc import Generator as Parts
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sparseseg.inputs.resolution import Region
    from napari_sparseseg.learning.training_set import (
        TrainingImage,
        TrainingSet,
        WorkingImage,
    )
    from napari_sparseseg.networks.pretrained_features import PretrainedFeatures

#: Features are kept by squares of this many working pixels: a stroke costs those it
#: touches, be the image as large as it may.
BLOCK = 256

#: There are many pretrained features, so of a class's pixels in a block no more are
#: learned from with them.
MOST_WITH_PRETRAINED = 4096


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features of annotated pixels of one image.

    Attributes
    ----------
    features
        (n, F) float32.
    channels
        (n,) int64, from 0.
    held_out
        (n,) bool.
    """

    features: Tensor
    channels: Tensor
    held_out: Tensor


@dataclass(frozen=True, eq=False)
class _Annotated:
    """The annotated pixels of a block: (n,) rows, columns, channels and held out."""

    rows: Tensor
    columns: Tensor
    channels: Tensor
    held_out: Tensor

    def equals(self, other: _Annotated) -> bool:
        return (
            torch.equal(self.rows, other.rows)
            and torch.equal(self.columns, other.columns)
            and torch.equal(self.channels, other.channels)
            and torch.equal(self.held_out, other.held_out)
        )

    def thinned(self, most: int) -> _Annotated:
        """Keep at most so many pixels of each channel, spread evenly over all."""
        kept = [
            pixels[:: -(-len(pixels) // most)]
            for channel in self.channels.unique()
            for pixels in (self.channels == channel).nonzero(as_tuple=True)
        ]
        chosen = torch.cat(kept).sort().values
        fields = (self.rows, self.columns, self.channels, self.held_out)
        return _Annotated(*(each[chosen] for each in fields))


@dataclass(eq=False)
class _Kept:
    """What is known of an image at one resolution.

    Attributes
    ----------
    pixels, scale
        It holds for these.
    blocks
        Annotated pixels by the number of their block, and their (n, F) features.
    labelled
        All blocks together, and what they are of.
    means
        (F,) mean fixed features of the windows of the image looked at so far.
    """

    pixels: NDArray[Any]
    scale: float
    blocks: dict[int, tuple[_Annotated, Tensor]] = field(default_factory=dict)
    labelled: tuple[WorkingImage, LabelledFeatures] | None = None
    means: list[Tensor] = field(default_factory=list)


class AnnotatedFeatures:
    """Computes features, and keeps them until pixels or annotations change.

    Parameters
    ----------
    n_channels
        Of the images.
    device
        Where features are computed and kept.
    pretrained
        Features on that device that join the fixed ones; None: none do.
    """

    def __init__(
        self,
        n_channels: int,
        device: str,
        pretrained: PretrainedFeatures | None = None,
    ) -> None:
        self._features = FixedFeatures(n_channels).to(device)
        self._pretrained = pretrained
        self._n_pretrained = 0 if pretrained is None else pretrained.n_features
        self._device = device
        self._images: dict[tuple[str, float], _Kept] = {}

    def in_parts(
        self, data: TrainingSet, image: TrainingImage, scale: float, centring: float
    ) -> Parts[None, None, LabelledFeatures]:
        """Return the features of an image's annotated pixels, with breaks in between.

        Whoever stops at a break, as is necessary when *data* changes, finds the blocks
        that were computed the next time.

        Parameters
        ----------
        data, image
            The training set, and one of its images.
        scale
            Working pixels per image pixel.
        centring
            Share of the image's mean fixed features that is taken away.
        """
        labelled = yield from self._labelled(data, image, scale)
        if not centring:
            return labelled
        mean = yield from self._mean(data, image, scale)
        mean = F.pad(mean, (0, self._n_pretrained))
        return replace(labelled, features=labelled.features - centring * mean)

    def _labelled(
        self, data: TrainingSet, image: TrainingImage, scale: float
    ) -> Parts[None, None, LabelledFeatures]:
        kept = self._kept(data, image, scale)
        working = yield from data.working_in_parts(image.name, scale)
        if kept.labelled is not None and kept.labelled[0] is working:
            return kept.labelled[1]
        found: dict[int, tuple[_Annotated, Tensor]] = {}
        for number, annotated in _blocks(working):
            if self._pretrained is not None:
                annotated = annotated.thinned(MOST_WITH_PRETRAINED)
            known = kept.blocks.get(number)
            if known is None or not known[0].equals(annotated):
                known = (annotated, self._compute(working.pixels, annotated))
                kept.blocks[number] = known
                yield
            found[number] = known
        labelled = self._joined(list(found.values()))
        # Parts of what is joined, so that nothing is kept twice.
        views = labelled.features.split([len(each.rows) for each, _ in found.values()])
        kept.blocks = {
            number: (found[number][0], view)
            for number, view in zip(found, views, strict=True)
        }
        kept.labelled = (working, labelled)
        return labelled

    def _mean(
        self, data: TrainingSet, image: TrainingImage, scale: float
    ) -> Parts[None, None, Tensor]:
        """Return the (F,) means of fixed features over the windows of a prediction."""
        kept = self._kept(data, image, scale)
        pixels = yield from data.pixels_in_parts(image.name, scale)
        windows = windows_of((pixels.shape[-2], pixels.shape[-1]))
        for y0, x0, y1, x1 in windows[len(kept.means) :]:
            kept.means.append(self._of(pixels[:, y0:y1, x0:x1]).mean(dim=(1, 2)))
            yield
        areas = [(y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in windows]
        shares = torch.tensor(areas, dtype=torch.float32) / sum(areas)
        means = torch.stack(kept.means)
        return shares.to(self._device) @ means

    def keep_only(self, scale: float) -> None:
        """Free what is kept of other resolutions."""
        for key in [key for key in self._images if key[1] != scale]:
            del self._images[key]

    def _kept(self, data: TrainingSet, image: TrainingImage, scale: float) -> _Kept:
        own_scale = data.scale_of(image, scale)
        key = (image.name, scale)
        kept = self._images.get(key)
        if kept is None or kept.pixels is not image.pixels or kept.scale != own_scale:
            for old in [old for old in self._images if old[0] not in data.images]:
                del self._images[old]
            kept = self._images[key] = _Kept(image.pixels, own_scale)
        return kept

    def _joined(self, blocks: list[tuple[_Annotated, Tensor]]) -> LabelledFeatures:
        if not blocks:
            none = torch.zeros(0, dtype=torch.int64, device=self._device)
            n_features = self._features.n_features + self._n_pretrained
            empty = torch.zeros(0, n_features, device=self._device)
            return LabelledFeatures(empty, none, none.bool())
        return LabelledFeatures(
            torch.cat([features for _, features in blocks]),
            torch.cat([each.channels for each, _ in blocks]).to(self._device),
            torch.cat([each.held_out for each, _ in blocks]).to(self._device),
        )

    def _compute(self, pixels: Tensor, annotated: _Annotated) -> Tensor:
        """Return the (n, F) features of the annotated pixels of a block."""
        rows, columns = annotated.rows, annotated.columns
        shape = (pixels.shape[-2], pixels.shape[-1])
        tile = make_tile(_bounds(annotated), shape, halo=self._features.halo, stride=1)
        y0, x0, y1, x1 = tile.field
        fixed = self._of(pixels[:, y0:y1, x0:x1])
        place = ((rows - y0).to(self._device), (columns - x0).to(self._device))
        features = fixed[:, place[0], place[1]].T.contiguous()
        if self._pretrained is None:
            return features
        others = self._compute_pretrained(self._pretrained, pixels, annotated)
        return torch.cat([features, others], dim=1)

    @torch.no_grad()
    def _compute_pretrained(
        self, pretrained: PretrainedFeatures, pixels: Tensor, annotated: _Annotated
    ) -> Tensor:
        """Do the same for pretrained features.

        Where they are remembered those of the whole block are asked for, so that it
        knows them when there are more strokes.
        """
        shape = (pixels.shape[-2], pixels.shape[-1])
        core = _bounds(annotated)
        if pretrained.remembered is not None:
            top, left = core[0] // BLOCK * BLOCK, core[1] // BLOCK * BLOCK
            core = (top, left, min(top + BLOCK, shape[0]), min(left + BLOCK, shape[1]))
        tile = make_tile(core, shape, halo=pretrained.halo, stride=pretrained.stride)
        y0, x0, y1, x1 = tile.field
        maps = pretrained.maps(as_batch(pixels[:, y0:y1, x0:x1].to(self._device)))
        return pretrained.at(maps, annotated.rows - y0, annotated.columns - x0)

    @torch.no_grad()  # not inference mode: the head is fitted on these tensors
    def _of(self, pixels: Tensor) -> Tensor:
        """Return the (F, h, w) fixed features of (C, h, w) pixels."""
        features: Tensor = self._features(as_batch(pixels.to(self._device)))[0]
        return features


def block_fields(
    shape: tuple[int, int], pretrained: PretrainedFeatures
) -> list[Region]:
    """Return what the encoder sees for each block of an image of *shape* (y, x)."""
    return [
        make_tile(core, shape, halo=pretrained.halo, stride=pretrained.stride).field
        for core in cover((0, 0, *shape), BLOCK)
    ]


def _bounds(annotated: _Annotated) -> Region:
    """Return the smallest region that holds all pixels."""
    rows, columns = annotated.rows, annotated.columns
    return (
        int(rows.min()),
        int(columns.min()),
        int(rows.max()) + 1,
        int(columns.max()) + 1,
    )


def _blocks(working: WorkingImage) -> Iterator[tuple[int, _Annotated]]:
    """Return the annotated pixels of each block that has any, by its number."""
    labels = torch.maximum(working.learned, working.held_out)
    rows, columns = labels.nonzero(as_tuple=True)
    per_row = -(-labels.shape[1] // BLOCK)
    numbers = rows // BLOCK * per_row + columns // BLOCK
    order = numbers.argsort(stable=True)
    rows, columns = rows[order], columns[order]
    channels = labels[rows, columns] - 1
    held_out = working.held_out[rows, columns] > 0
    found, counts = numbers[order].unique_consecutive(return_counts=True)
    sizes = counts.tolist()
    fields = (each.split(sizes) for each in (rows, columns, channels, held_out))
    for number, *block in zip(found.tolist(), *fields, strict=True):
        yield number, _Annotated(*block)
