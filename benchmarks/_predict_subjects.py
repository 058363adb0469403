"""Image to labels, by this project and by MONAI's sliding windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.inputs.resolution import enlarge, shrink, whole, working_shape
from napari_sparseseg.networks.model import ModelInfo, SegmentationModel, build_part
from napari_sparseseg.networks.registry import PRESETS
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sparseseg.networks.network_names import Preset

N_CLASSES = 4


def random_model(preset: Preset, scale: float, device: str) -> SegmentationModel:
    """Return a model for RGB images, four classes, with random weights."""
    torch.manual_seed(0)
    info = ModelInfo(
        classes=ClassTable.from_values(range(1, N_CLASSES + 1)),
        in_channels=3,
        normalisation=Normalisation("range", 0.0, 255.0),
        scales={"network": scale},
        shown="network",
        network=PRESETS["unet"][preset],
    )
    model = SegmentationModel(info, {"network": build_part("network", info)})
    return model.to(device)


def predict_ours(
    model: SegmentationModel, image: NDArray[np.uint8], tile: int
) -> NDArray[Any]:
    """Label an image, (y, x, 3), with tiles of *tile* working pixels."""
    labels, _ = predict_image(model, image, PredictOptions(tile=tile))
    return labels


@torch.inference_mode()
def predict_monai(
    model: SegmentationModel, image: NDArray[np.uint8], tile: int, mode: str
) -> NDArray[Any]:
    """Label an image with the same network, resampling and windows.

    A window is as large as one of our tiles with its halo (or as the image, if that is
    smaller), in whole strides of the network; the next one begins *tile* working
    pixels further.

    Parameters
    ----------
    model, image, tile
        As for :func:`predict_ours`.
    mode
        How MONAI blends windows: ``"constant"`` or ``"gaussian"``.
    """
    from monai.inferers.utils import sliding_window_inference

    network, scale = model.parts["network"], model.info.scales["network"]

    def run_network(windows: Tensor) -> Tensor:
        scores: Tensor = network(windows.contiguous(memory_format=torch.channels_last))
        return scores

    device = next(network.parameters()).device
    source = whole(image.shape)
    shape = working_shape(image.shape, scale)
    pixels = model.info.normalisation.apply(image).to(device)
    windows = [window_of(model, tile, length) for length in shape]
    scores = sliding_window_inference(
        shrink(pixels, source, whole(shape), scale)[None],
        roi_size=windows,
        sw_batch_size=1,
        predictor=run_network,
        overlap=[overlap_of(window, tile) for window in windows],
        mode=mode,
    )
    assert isinstance(scores, torch.Tensor)
    enlarged = enlarge(scores[0], whole(shape), source, scale)
    # On a processor several times as fast as argmax.
    channels = enlarged.max(dim=0).indices
    return model.info.classes.from_channels(channels.cpu().numpy())


def window_of(model: SegmentationModel, tile: int, length: int) -> int:
    """Return the side of a tile with its halo, no longer than the image's *length*.

    In whole strides of the network.
    """
    network = model.parts["network"]
    side = min(tile + 2 * network.halo, length)
    return -(-side // network.stride) * network.stride


def overlap_of(window: int, tile: int) -> float:
    """Return the share by which windows overlap when they are *tile* pixels apart."""
    # MONAI rounds window * (1 - overlap) down; half a pixel keeps it from tile - 1.
    return max(0.0, 1 - (tile + 0.5) / window)
