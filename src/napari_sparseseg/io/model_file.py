"""Models and checkpoints as safetensors files: numbers and JSON, no code inside.

The metadata of the file has one entry, ``napari-sparseseg``: a JSON object with
``kind`` (``model`` or ``checkpoint``), ``version`` and ``content``. The content of a
model is described in ``docs/model_file.md``.
"""

from __future__ import annotations

import json
import math
import platform
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import ClassTableError, ModelFileError, OptionError
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.io.atomic import write_atomically
from napari_sparseseg.networks.model import (
    PARTS_OF,
    ModelInfo,
    Part,
    SegmentationModel,
    build_part,
)
from napari_sparseseg.networks.network_names import HeadFeatures
from napari_sparseseg.networks.registry import NetworkSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

Kind = Literal["model", "checkpoint"]

#: Version of the schema. Files of a later one are refused.
VERSION = 1

ENTRY = "napari-sparseseg"
_ENTRY_KEYS = {"kind", "version", "content"}
_PARTS: tuple[Part, ...] = ("head", "network")
_NORMALISATIONS = ("range", "percentiles", "window")
_TRAINING_TYPES = {
    "recipe": str,
    "loss": str,
    "l1_weight": float,
    "l2_weight": float,
    "smoothness": float,
    "encoder_weights": str,
    "freeze_encoder": bool,
    "weight_decay": float,
    "feature_cache": bool,
    "balancing": str,
    "seed": int,
    "steps": int,
    "processes": int,
    "images": int,
    "pixels": dict,
    "strokes": dict,
    "held_out_dice": dict,
    "reason": str,
}
_OBJECTS = {
    "normalisation": {"kind", "low", "high"},
    "network": {"name", "options"},
    "training": set(_TRAINING_TYPES),
}
_MODEL_KEYS = {
    "classes",
    "in_channels",
    "scales",
    "shown",
    "head_features",
    "um_per_px",
    "versions",
    *_OBJECTS,
    *(f"{name}.{key}" for name, keys in _OBJECTS.items() for key in keys),
}

#: Keys that the first files of this version do not have.
_ADDED_LATER = {
    "head_features",
    "training.l1_weight",
    "training.l2_weight",
    "training.smoothness",
    "training.freeze_encoder",
    "training.weight_decay",
    "training.feature_cache",
    "training.reason",
    "training.processes",
}


def save_model(model: SegmentationModel, path: str | Path) -> None:
    """Write a model to one ``.safetensors`` file, completely or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    content = model_bytes(model)
    write_atomically(path, lambda temporary: _write_bytes(temporary, content))


def model_bytes(model: SegmentationModel) -> bytes:
    """Return the content of a model's file; the same model gives the same bytes."""
    info = model.info
    training = dict(info.training)
    # A model that is loaded and saved again keeps the versions that trained it.
    made_with = training.pop("versions", None) or versions()
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
        "head_features": info.head_features,
        "um_per_px": info.um_per_px,
        "training": training,
        "versions": made_with,
    }
    tensors = {
        f"{name}.{key}": value
        for name, part in model.parts.items()
        for key, value in part.state_dict().items()
    }
    return _bytes("model", content, tensors)


def load_model(path: str | Path) -> SegmentationModel:
    """Read a model written by :func:`save_model`; it is on the CPU.

    Raises
    ------
    ModelFileError
        If the file cannot be read, is no model, is of a later version, or has keys
        that are not known or lacks some that are needed; the message names them.
    """
    content, tensors = _read(path, "model")
    _check_keys(path, "model", _keys(content) | _ADDED_LATER, _MODEL_KEYS)
    content.setdefault("head_features", "fixed")
    names = [
        name for name in _PARTS if any(key.startswith(f"{name}.") for key in tensors)
    ]
    try:
        _check_values(content, names)
        info = _info(content)
        parts = {name: build_part(name, info) for name in names}
    # torch's errors on sizes that are impossible or too large are RuntimeErrors.
    except (
        ClassTableError,
        OptionError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelFileError(
            f"{path} does not describe a model that can be built: {reason}.",
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
    file = _bytes("checkpoint", content, tensors)
    write_atomically(path, lambda temporary: _write_bytes(temporary, file))


def load_checkpoint(
    path: str | Path, keys: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the state of a training written by :func:`save_checkpoint`.

    Parameters
    ----------
    path
        The file.
    keys
        What its content must have.

    Raises
    ------
    ModelFileError
        If the file cannot be read, is no checkpoint, is of a later version, or has keys
        that are not known or lacks some that are needed; the message names them.
    """
    content, tensors = _read(path, "checkpoint")
    _check_keys(path, "checkpoint", set(content), set(keys))
    return tensors, content


def is_own_file(path: str | Path) -> bool:
    """Tell whether a file is a model or a checkpoint of any version."""
    if not Path(path).is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return ENTRY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def versions() -> dict[str, str]:
    """Return the versions of what takes part in the numbers."""
    return {
        "napari-sparseseg": version_of("napari-sparseseg"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _keys(content: Mapping[str, Any]) -> set[str]:
    """Return the keys of a model's content, with a dot those of objects in it."""
    inner = {
        f"{name}.{key}"
        for name in _OBJECTS
        if isinstance(content.get(name), dict)
        for key in content[name]
    }
    return {*content, *inner}


def _check_values(content: Mapping[str, Any], parts: Collection[Part]) -> None:
    """Raise ValueError if a value cannot be, given the parts that have weights."""
    in_channels, scales = content["in_channels"], content["scales"]
    kind, low, high = (content["normalisation"][key] for key in ("kind", "low", "high"))
    options, um_per_px = content["network"]["options"], content["um_per_px"]
    shown, head_features = content["shown"], content["head_features"]
    checks = [
        ("in_channels", in_channels, isinstance(in_channels, int) and in_channels > 0),
        ("normalisation.kind", kind, kind in _NORMALISATIONS),
        ("normalisation.low and .high", [low, high], _is_interval(low, high)),
        ("scales", scales, isinstance(scales, dict) and set(scales) == set(parts)),
        ("shown", shown, shown in PARTS_OF and {*PARTS_OF[shown]} <= {*parts}),
        ("head_features", head_features, head_features in get_args(HeadFeatures)),
        ("network.options", options, isinstance(options, dict)),
        ("um_per_px", um_per_px, um_per_px is None or _is_positive(um_per_px)),
        ("versions", content["versions"], isinstance(content["versions"], dict)),
    ]
    checks += [
        (f"training.{key}", value, isinstance(value, _TRAINING_TYPES[key]))
        for key, value in content["training"].items()
    ]
    if isinstance(scales, dict):
        checks += [(f"scales.{k}", v, _is_positive(v)) for k, v in scales.items()]
    for name, value, fits in checks:
        if not fits:
            raise ValueError(f"{name} cannot be {value!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_interval(low: object, high: object) -> bool:
    return _is_number(low) and _is_number(high) and low < high


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0


def _info(content: Mapping[str, Any]) -> ModelInfo:
    normalisation = content["normalisation"]
    classes = ClassTable.from_json(content["classes"])
    if not len(classes):
        raise ValueError("it has no classes")
    return ModelInfo(
        classes=classes,
        in_channels=int(content["in_channels"]),
        normalisation=Normalisation(
            normalisation["kind"], normalisation["low"], normalisation["high"]
        ),
        scales=content["scales"],
        shown=content["shown"],
        network=NetworkSpec(content["network"]["name"], content["network"]["options"]),
        head_features=content["head_features"],
        um_per_px=content["um_per_px"],
        training=content["training"] | {"versions": content["versions"]},
    )


def _bytes(kind: Kind, content: Mapping[str, Any], tensors: Mapping[str, Any]) -> bytes:
    entry = json.dumps({"kind": kind, "version": VERSION, "content": dict(content)})
    plain = {key: value.cpu().contiguous() for key, value in tensors.items()}
    # Not save_file: it gives no OSError on a full disk, and files only the user reads.
    return save(plain, metadata={ENTRY: entry})


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
    if ENTRY not in metadata:
        raise ModelFileError(
            f"{path} holds weights of another program; expected is a {kind} written by "
            "napari-sparseseg.",
            path=str(path),
        )
    return _content(path, kind, metadata[ENTRY]), tensors


def _content(path: str | Path, kind: Kind, text: str) -> dict[str, Any]:
    """Return what the metadata say, if they say it of a file of this kind."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} has metadata that are no JSON ({error}); the file is damaged: use "
            f"the {kind} that the training wrote.",
            path=str(path),
        ) from error
    version = entry.get("version") if isinstance(entry, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise ModelFileError(
            f"{path} has the format version {version}, but this program knows "
            f"versions up to {VERSION}; update napari-sparseseg.",
            path=str(path),
            version=version,
        )
    given = set(entry) if isinstance(entry, dict) else set()
    _check_keys(path, kind, given, _ENTRY_KEYS)
    if entry["kind"] != kind:
        raise ModelFileError(
            f"{path} is a {entry['kind']}, but a {kind} is needed; give the {kind} "
            "that the training wrote beside it.",
            path=str(path),
            kind=entry["kind"],
        )
    if version != VERSION or not isinstance(entry["content"], dict):
        raise ModelFileError(
            f"{path} has the format version {version!r} and content of type "
            f"{type(entry['content']).__name__}; expected version {VERSION} and an "
            f"object: use the {kind} that the training wrote.",
            path=str(path),
            version=version,
        )
    content: dict[str, Any] = entry["content"]
    return content


def _refuse_pickle(path: str | Path, kind: Kind) -> None:
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}.", path=str(path)
        ) from error
    # The length of a safetensors header, eight bytes, may begin as a pickle does.
    if start[4:] == b"\0\0\0\0{":
        return
    if start.startswith((b"PK", b"\x80")):
        raise ModelFileError(
            f"{path} is a pickle (as torch.save writes) or a zip file, which can hold "
            f"code and is never opened; expected is a {kind} in a .safetensors file.",
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
