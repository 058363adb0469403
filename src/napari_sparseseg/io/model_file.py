"""Models and checkpoints as safetensors files: numbers and JSON, no code inside.

The metadata of the file has one entry, ``napari-sparseseg``: a JSON object with
``kind`` (``model`` or ``checkpoint``), ``version`` and ``content``. The content of a
model is described in ``docs/model_file.md``.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import ClassTableError, ModelFileError, OptionError
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.networks.model import (
    ModelInfo,
    Part,
    SegmentationModel,
    build_part,
)
from napari_sparseseg.networks.registry import NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

Kind = Literal["model", "checkpoint"]

#: Version of the schema. Files of a later one are refused.
VERSION = 1

_ENTRY = "napari-sparseseg"
_PARTS: tuple[Part, ...] = ("head", "network")
_MODEL_KEYS = {
    "classes",
    "in_channels",
    "normalisation",
    "scales",
    "shown",
    "network",
    "um_per_px",
    "training",
    "versions",
}


def save_model(model: SegmentationModel, path: str | Path) -> None:
    """Write a model to one ``.safetensors`` file, completely or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    info = model.info
    content = {
        "classes": info.classes.to_json(),
        "in_channels": info.in_channels,
        "normalisation": {
            "kind": info.normalisation.kind,
            "low": info.normalisation.low,
            "high": info.normalisation.high,
        },
        "scales": dict(info.scales),
        "shown": info.shown,
        "network": {"name": info.network.name, "options": dict(info.network.options)},
        "um_per_px": info.um_per_px,
        "training": dict(info.training),
        "versions": versions(),
    }
    tensors = {
        f"{name}.{key}": value
        for name, part in model.parts.items()
        for key, value in part.state_dict().items()
    }
    _write(path, "model", content, tensors)


def load_model(path: str | Path) -> SegmentationModel:
    """Read a model written by :func:`save_model`; it is on the CPU.

    Raises
    ------
    ModelFileError
        If the file cannot be read, is no model, is of a later version, or has keys
        that are not known or lacks some that are needed; the message names them.
    """
    content, tensors = _read(path, "model")
    _check_keys(path, "model", set(content), _MODEL_KEYS)
    try:
        info = _info(content)
        parts = {
            name: build_part(name, info)
            for name in _PARTS
            if any(key.startswith(f"{name}.") for key in tensors)
        }
    except (ClassTableError, OptionError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path} does not describe a model that can be built: {error}.",
            path=str(path),
        ) from error
    expected = {
        f"{name}.{key}": value.shape
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }
    _check_keys(path, "model", set(tensors), set(expected))
    for key, shape in expected.items():
        if tensors[key].shape != shape:
            raise ModelFileError(
                f"{path} has weights {key} of shape {tuple(tensors[key].shape)}, but "
                f"its description asks for {tuple(shape)}; the file is damaged.",
                path=str(path),
                key=key,
            )
    for name, part in parts.items():
        start = f"{name}."
        part.load_state_dict(
            {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
        )
    return SegmentationModel(info, parts)


def save_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], content: Mapping[str, Any]
) -> None:
    """Write the state of a training, completely or not at all."""
    _write(path, "checkpoint", content, tensors)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the state of a training written by :func:`save_checkpoint`.

    Raises
    ------
    ModelFileError
        If the file cannot be read or is no checkpoint.
    """
    content, tensors = _read(path, "checkpoint")
    return tensors, content


def versions() -> dict[str, str]:
    """Return the versions of what takes part in the numbers."""
    return {
        "napari-sparseseg": version_of("napari-sparseseg"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _info(content: Mapping[str, Any]) -> ModelInfo:
    normalisation = content["normalisation"]
    return ModelInfo(
        classes=ClassTable.from_json(content["classes"]),
        in_channels=int(content["in_channels"]),
        normalisation=Normalisation(
            normalisation["kind"], normalisation["low"], normalisation["high"]
        ),
        scales=content["scales"],
        shown=content["shown"],
        network=NetworkSpec(content["network"]["name"], content["network"]["options"]),
        um_per_px=content["um_per_px"],
        training=content["training"] | {"versions": content["versions"]},
    )


def _write(
    path: str | Path, kind: Kind, content: Mapping[str, Any], tensors: Mapping[str, Any]
) -> None:
    entry = json.dumps({"kind": kind, "version": VERSION, "content": dict(content)})
    plain = {key: value.cpu().contiguous() for key, value in tensors.items()}

    # Not save_file: it gives no OSError on a full disk, and files only the user reads.
    content_bytes = save(plain, metadata={_ENTRY: entry})
    write_atomically(path, lambda temporary: _write_bytes(temporary, content_bytes))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _read(path: str | Path, kind: Kind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    _refuse_pickle(path, kind)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {key: file.get_tensor(key) for key in names}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path} cannot be read as a {kind}: {error}; the file is damaged or not a "
            ".safetensors file: use the one that the training wrote.",
            path=str(path),
        ) from error
    if _ENTRY not in metadata:
        raise ModelFileError(
            f"{path} holds weights of another program; expected is a {kind} written by "
            "napari-sparseseg.",
            path=str(path),
        )
    entry = json.loads(metadata[_ENTRY])
    if entry["version"] > VERSION:
        raise ModelFileError(
            f"{path} has the format version {entry['version']}, but this program knows "
            f"versions up to {VERSION}; update napari-sparseseg.",
            path=str(path),
            version=entry["version"],
        )
    if entry["kind"] != kind:
        raise ModelFileError(
            f"{path} is a {entry['kind']}; expected is a {kind}.",
            path=str(path),
            kind=entry["kind"],
        )
    return entry["content"], tensors


def _refuse_pickle(path: str | Path, kind: Kind) -> None:
    try:
        with Path(path).open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}.", path=str(path)
        ) from error
    if start == b"PK" or start[:1] == b"\x80":
        raise ModelFileError(
            f"{path} is a pickle (as torch.save writes), which can run code and is "
            f"never opened; expected is a {kind} in a .safetensors file.",
            path=str(path),
        )


def _check_keys(path: str | Path, kind: Kind, given: set[str], known: set[str]) -> None:
    if given == known:
        return
    unknown, missing = sorted(given - known), sorted(known - given)
    parts = [
        f"{word} {', '.join(keys[:5])}{' ...' if len(keys) > 5 else ''}"
        for word, keys in (("unknown keys", unknown), ("missing keys", missing))
        if keys
    ]
    raise ModelFileError(
        f"{path} is no {kind} of this version: it has {' and '.join(parts)}.",
        path=str(path),
        unknown=unknown,
        missing=missing,
    )
