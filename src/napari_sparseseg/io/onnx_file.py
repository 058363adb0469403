"""Models as ONNX files: other programs predict with them, without torch."""

from __future__ import annotations

import dataclasses
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sparseseg.errors import OptionError, OutputError
from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.io.model_file import ENTRY, versions
from napari_sparseseg.networks.image_statistics import uses_statistics
from napari_sparseseg.networks.model import PARTS_OF

if TYPE_CHECKING:
    from napari_sparseseg.networks.model import Part, SegmentationModel
    from napari_sparseseg.networks.scoring import ScoringNetwork

#: Version of the schema of the metadata.
VERSION = 1

#: Names of the input and the output of the graph.
INPUT, OUTPUT = "image", "probabilities"

#: The oldest operator set that has all that is needed by torch's exporter of 2.4.
OPSET = 17

#: Class probabilities of torch and of onnxruntime differ by no more than this.
TOLERANCE = 1e-3

#: Least sides of the image on which they are compared.
LEAST_PX = 97, 98

#: What the channels of an image are, by their number.
CHANNEL_ORDER = {1: "grey", 3: "RGB"}


class Agreement(NamedTuple):
    """How well class probabilities of onnxruntime and torch agree on an image.

    Attributes
    ----------
    difference
        The largest.
    spread
        How far those of a class lie apart at most in this image: what a difference is
        to be compared with.
    """

    difference: float
    spread: float


class Probabilities(nn.Module):
    """(N, C, H, W) float32 in [0, 1] -> (N, n_classes, H, W) class probabilities."""

    def __init__(self, network: ScoringNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Score *image*."""
        probabilities: Tensor = self.network(image).softmax(dim=1)
        return probabilities


def export_onnx(
    model: SegmentationModel, path: str | Path, part: Part | None = None
) -> Agreement | None:
    """Write the head or the network of a model to an ONNX file, and check it.

    The input ``image`` is (N, C, H, W) float32 in [0, 1], at the working resolution of
    the part; the output ``probabilities`` is (N, n_classes, H, W) float32. N, H and W
    are free, sides that are no multiple of the stride included. All that is needed to
    use it stands in the metadata, see ``docs/onnx_file.md``.

    Parameters
    ----------
    model
        Of training or a file.
    path
        Ends in ``.onnx``; written completely or not at all.
    part
        ``"head"`` or ``"network"``. Default: the one that predicts.

    Returns
    -------
    Agreement or None
        Of class probabilities of onnxruntime and torch on a smooth image of growing
        contrast; None where onnxruntime is missing, and so nothing was checked.

    Raises
    ------
    OptionError
        If onnx is not installed, the name does not end in ``.onnx``, or *part* is not
        one of the model, or not given where both predict.
    OutputError
        If the file cannot be written, or torch or kornia is too old for it; or if
        probabilities differ by more than ``TOLERANCE``. A file that was there stays.
    """
    check_can_export(path)
    import onnx

    part = exported_part(model, part)
    entry = {"kind": "onnx", "version": VERSION, "content": contract(model, part)}
    agreement: Agreement | None = None

    def write(temporary: Path) -> None:
        nonlocal agreement
        _trace(model, part, temporary)
        graph = onnx.load(temporary)
        onnx.helper.set_model_props(graph, {ENTRY: json.dumps(entry)})
        onnx.save(graph, temporary)
        agreement = _agreement(model, part, temporary)

    write_atomically(path, write)
    return agreement


def check_can_export(path: str | Path) -> None:
    """Raise OptionError if onnx is not installed, or *path* does not end in .onnx."""
    if Path(path).suffix.lower() != ".onnx":
        raise OptionError(
            f"the ONNX file is to be named {Path(path).name!r}; give a name that ends "
            "in .onnx.",
            path=str(path),
        )
    if find_spec("onnx") is None:
        raise OptionError(
            "ONNX files need onnx, which is not installed; install it with: "
            "pip install 'napari-sparseseg[onnx]'"
        )


def exported_part(model: SegmentationModel, part: str | None) -> Part:
    """Return the part that is exported: the one asked for, or the one that predicts.

    Raises
    ------
    OptionError
        If the model has no such part, or none is asked for and both predict.
    """
    if part is None:
        predicting = PARTS_OF[model.info.shown]
        if len(predicting) > 1:
            raise OptionError(
                "the model predicts with the mean of head and network, but an ONNX "
                "file holds one of them; choose the part head or network.",
                shown=model.info.shown,
            )
        return predicting[0]
    for name in model.parts:
        if name == part:
            return name
    raise OptionError(
        f"the part is {part!r}, but the model has {' and '.join(model.parts)}; choose "
        "one of these.",
        part=part,
    )


def contract(model: SegmentationModel, part: Part) -> dict[str, Any]:
    """Return what must be known to predict with a part alone, as JSON values."""
    info, network = model.info, model.parts[part]
    return {
        "part": part,
        "classes": info.classes.to_json(),
        "in_channels": info.in_channels,
        "channel_order": CHANNEL_ORDER.get(
            info.in_channels, "that of the training images"
        ),
        "normalisation": dataclasses.asdict(info.normalisation),
        "scale": info.scales[part],
        "um_per_px": info.um_per_px,
        "stride": network.stride,
        "halo": network.halo,
        "statistics": "input" if uses_statistics(network) else "none",
        "network": dataclasses.asdict(info.network) if part == "network" else None,
        "versions": info.training.get("versions") or versions(),
        "exported_by": versions(),
    }


def _agreement(model: SegmentationModel, part: Part, path: Path) -> Agreement | None:
    """Compare an ONNX file with the model that it was made of, see `export_onnx`."""
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    module = _module(model, part)
    stride = module.network.stride
    height, width = max(6 * stride + 1, LEAST_PX[0]), max(3 * stride + 2, LEAST_PX[1])
    image = _smooth_image(model.info.in_channels, height, width)
    with torch.inference_mode():
        expected = module(image).numpy()
    session = onnxruntime.InferenceSession(
        path.read_bytes(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run([OUTPUT], {INPUT: image.numpy()})
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise OutputError(
            f"the {part} as ONNX gives class probabilities that differ by up to "
            f"{difference:g} from those of the model, so no file is written; report "
            f"this with the version of torch, {torch.__version__}.",
            difference=difference,
        )
    return Agreement(difference, float(np.ptp(expected, axis=(0, 2, 3)).max()))


def _module(model: SegmentationModel, part: Part) -> Probabilities:
    return Probabilities(model.to("cpu").parts[part]).eval()


def _random_image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def _smooth_image(n_channels: int, height: int, width: int) -> Tensor:
    """Return (1, n_channels, height, width) in [0, 1], somewhat like a real image.

    Shapes of some 16 pixels, whose contrast grows from left to right; channels are much
    alike, and there is a little noise. On noise alone a head, which goes by texture,
    may be so sure everywhere that its probabilities tell nothing of its scores.
    """
    coarse = _random_image(1, n_channels, height // 16 + 2, width // 16 + 2)
    alike = 0.7 * coarse.mean(dim=1, keepdim=True) + 0.3 * coarse
    shapes = F.interpolate(alike, size=(height, width), mode="bicubic") - 0.5
    noise = _random_image(1, n_channels, height, width) - 0.5
    contrast = torch.linspace(0.05, 1, width)
    return (0.6 + contrast * shapes + 0.05 * noise).clamp(0, 1)


def _trace(model: SegmentationModel, part: Part, path: Path) -> None:
    """Write the graph and the weights."""
    module = _module(model, part)
    # No side is a multiple of the stride, so that growing them is part of the graph.
    stride = module.network.stride
    image = _random_image(2, model.info.in_channels, 4 * stride + 1, 5 * stride + 1)
    free = {0: "n", 2: "height", 3: "width"}
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter of torch.export cannot free sides that are padded by what they
        # lack, and is not there in torch 2.4. This one warns of each Python number.
        warnings.simplefilter("ignore")
        module(image)  # what is imported on first use must not be traced
        try:
            torch.onnx.export(
                module,
                (image,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: free, OUTPUT: free},
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise OutputError(
                f"torch {torch.__version__} cannot write the {part} as ONNX "
                f"({type(error).__name__}); update torch and kornia: "
                "pip install --upgrade 'napari-sparseseg[onnx]'",
                part=part,
            ) from error
