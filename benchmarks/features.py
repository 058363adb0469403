"""What it saves to compute the features of an encoder once and keep them.

Training of a decoder behind a frozen encoder: through the encoder with all
augmentation, and from the cache. Steps of both alternate, so that a machine that slows
down slows both. And the per-pixel head: how long a stroke takes with fixed features,
and with the early layers of an encoder beside them. Weights are drawn, which changes no
time.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from benchmarks._machine import machine, sentence, source_hash
from benchmarks._report import (
    RESULTS,
    command_line,
    middle,
    new_section,
    publish,
    write_json,
)
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.learning.feature_cache import FeatureCacheOptions
from napari_sparseseg.learning.feature_patches import FeatureSampler
from napari_sparseseg.learning.head_training import HeadTraining
from napari_sparseseg.learning.network_training import NetworkTraining
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.learning.training_set import TrainingImage, TrainingSet
from napari_sparseseg.networks.encoders import Encoder
from napari_sparseseg.networks.network_names import ENCODER_OF, HeadFeatures
from napari_sparseseg.networks.registry import PRESETS
from napari_sparseseg.networks.scoring import as_batch
from napari_sparseseg.samples import immunohistochemistry

if TYPE_CHECKING:
    from benchmarks._report import Section
    from napari_sparseseg.learning.feature_cache import FeatureCacheUse
    from napari_sparseseg.networks.network_names import NetworkName, Preset

#: Working pixels per image pixel, and the classes of the strokes.
SCALE, CLASSES = 0.5, ClassTable.from_values([1, 2, 3])

Record = dict[str, Any]


def main() -> None:
    """Measure, print and keep the results."""
    args = parse_arguments()
    suffix = "" if args.device == "cpu" else f"-{args.device}"
    path = args.results / f"features{suffix}.json"
    content: Record = {
        "command": command_line("features"),
        "machine": machine("napari-sparseseg", "torchvision", "zarr"),
        "source": source_hash(),
        "device": args.device,
        "images": args.images,
        "batch": args.batch,
        "networks": [],
        "heads": [],
    }
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
    for preset in args.presets:
        for name in args.networks:
            content["networks"].append(compare_steps(name, preset, args))
            write_json(path, content)
            print(f"{name}, {preset}: done", flush=True)
    calls = count_encodings()
    for features in args.heads:
        content["heads"].append(time_strokes(features, args, calls))
        write_json(path, content)
        print(f"head, {features}: done", flush=True)
    publish(
        path,
        network_section(content),
        head_section(content),
        sentence(content["machine"]),
        content["command"],
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.features", description=__doc__)
    add = parser.add_argument
    add("--networks", nargs="*", choices=ENCODER_OF, default=list(ENCODER_OF))
    add("--presets", nargs="+", choices=["light", "paper"], default=["light", "paper"])
    add("--heads", nargs="*", choices=get_args(HeadFeatures), default=None)
    add("--images", type=int, default=4, help="of 512 x 512 pixels")
    add("--batch", type=int, default=RECIPES["live"].batch, help="patches a step")
    add("--steps", type=int, default=7, help="of each training; the median counts")
    add("--strokes", type=int, default=7, help="of each head; the median counts")
    add("--device", default="cpu", help="cpu or cuda")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args()
    args.heads = get_args(HeadFeatures) if args.heads is None else args.heads
    return args


def training_set(n_images: int, n_strokes: int) -> TrainingSet:
    """Return parts of scikit-image's stained tissue with strokes of three classes."""
    tissue = immunohistochemistry().image
    rng = np.random.default_rng(0)
    images = []
    for number in range(n_images):
        labels = np.zeros(tissue.shape[:2], np.uint8)
        for stroke in range(n_strokes):
            paint(labels, 1 + stroke % len(CLASSES), rng)
        pixels = np.roll(tissue, 37 * number, axis=(0, 1))
        images.append(TrainingImage(f"{number}", pixels, labels))
    return TrainingSet(images, CLASSES, Normalisation("range", 0, 255), seed=0)


def paint(labels: Any, value: int, rng: np.random.Generator) -> None:
    """Paint a stroke of 40 x 8 pixels somewhere."""
    y, x = rng.integers(0, np.array(labels.shape) - 40)
    labels[y : y + 8, x : x + 40] = value


def compare_steps(name: NetworkName, preset: Preset, args: Any) -> Record:
    """Time steps of both trainings in turn."""
    data = training_set(args.images, 9)

    def training(use: FeatureCacheUse, folder: Path) -> NetworkTraining:
        options = TrainingOptions(
            network=PRESETS[name][preset],
            recipe=dataclasses.replace(RECIPES["live"], batch=args.batch),
            freeze_encoder=True,
            device=args.device,
            feature_cache=FeatureCacheOptions(use, folder),
        )
        generator = torch.Generator().manual_seed(0)
        return NetworkTraining(data, data.at(SCALE), SCALE, options, generator)

    with tempfile.TemporaryDirectory() as folder:
        through, cached = (training(use, Path(folder)) for use in ("off", "on"))
        fill_s = seconds_of(lambda: fill(cached), args.device)
        fill(cached)  # from disk into memory, which the first steps would do
        n_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
        seconds: dict[str, list[float]] = {"through": [], "cached": []}
        for _ in range(args.steps + 1):
            seconds["through"].append(seconds_of(through.step, args.device))
            seconds["cached"].append(seconds_of(cached.step, args.device))
    return {
        "network": name,
        "preset": preset,
        "seconds": {way: each[1:] for way, each in seconds.items()},
        "fill_s": fill_s,
        "bytes": n_bytes,
    }


def fill(training: NetworkTraining) -> None:
    """Compute the features of all images in all orientations."""
    sampler = training._sampler
    assert isinstance(sampler, FeatureSampler)
    for features in sampler.features.values():
        features.of((0, 0, *features.shape))


def time_strokes(features: HeadFeatures, args: Any, calls: list[int]) -> Record:
    """Time the first fit of the head, and what follows a stroke."""
    data = training_set(args.images, 9)
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(
            scale=SCALE,
            device=args.device,
            head_features=features,
            feature_cache=FeatureCacheOptions("on", Path(folder)),
        )
        training = HeadTraining(data, options)
        first_s = seconds_of(lambda: training.fit(data), args.device)
        shown_s, done_s, encodings, known_s, new_s = [], [], [], [], []
        for number in range(args.strokes + 1):
            image = data.images["0"]
            labels = image.labels.copy()
            paint(labels, 1 + number % len(CLASSES), rng)
            calls.clear()
            started = time.perf_counter()
            data.put(dataclasses.replace(image, labels=labels))
            parts = training.fit_in_parts(data)
            head = next(each for each in parts if each is not None).network
            shown_s.append(time.perf_counter() - started)
            for _ in parts:
                pass
            done_s.append(time.perf_counter() - started)
            encodings.append(len(calls))
            view = as_batch(data.pixels_at("0", SCALE).to(args.device))
            with torch.inference_mode():
                known_s.append(seconds_of(partial(head, view), args.device))
                forgetful = copy.deepcopy(head)
                forgetful.forget_images()
                new_s.append(seconds_of(partial(forgetful, view), args.device))
    n_features = head.head.mean.numel()
    return {
        "features": features,
        "n_features": n_features,
        "first_s": first_s,
        "shown_s": shown_s[1:],
        "done_s": done_s[1:],
        "encodings": encodings[1:],
        "known_view_s": known_s[1:],
        "new_view_s": new_s[1:],
    }


def count_encodings() -> list[int]:
    """Return a list that gets an entry whenever an encoder runs."""
    calls: list[int] = []
    forward = Encoder.forward

    def counted(self: Encoder, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        calls.append(len(x))
        return forward(self, x)

    Encoder.forward = counted  # type: ignore[method-assign]
    return calls


def seconds_of(work: Any, device: str) -> float:
    """Return how long some work takes."""
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def network_section(content: Record) -> Section:
    """Return the table of the trainings."""
    section = new_section(
        f"Training of a decoder behind a frozen encoder: {content['batch']} patches of "
        f"128 x 128 pixels a step, of {content['images']} images of 256 x 256 working "
        "pixels. Filling the cache computes each in eight orientations, once for all "
        "later trainings.",
        [
            "network",
            "size",
            "through the encoder, s",
            "from the cache, s",
            "times as fast",
            "fill, s",
            "repaid after steps",
            "MiB",
        ],
        left=2,
    )
    for each in content["networks"]:
        through, cached = (each["seconds"][way] for way in ("through", "cached"))
        ratios = [a / b for a, b in zip(through, cached, strict=True)]
        saved = median(through) - median(cached)
        section.table.add_row(
            each["network"],
            each["preset"],
            middle(through, 2),
            middle(cached, 2),
            middle(ratios, 2),
            f"{each['fill_s']:.1f}",
            f"{each['fill_s'] / saved:.0f}" if saved > 0 else "never",
            f"{each['bytes'] / 2**20:.0f}",
        )
    return section


def head_section(content: Record) -> Section:
    """Return the table of the heads."""
    section = new_section(
        "The head after a stroke: until one that knows it can predict, until it is "
        "fitted anew and judged, and labelling a view of 256 x 256 working pixels, "
        "which it has seen before or sees for the first time.",
        [
            "features",
            "number",
            "first fit, s",
            "stroke to head, s",
            "to the end, s",
            "encoder runs a stroke",
            "known view, s",
            "new view, s",
        ],
    )
    for each in content["heads"]:
        section.table.add_row(
            each["features"],
            str(each["n_features"]),
            f"{each['first_s']:.1f}",
            middle(each["shown_s"], 2),
            middle(each["done_s"], 2),
            middle(each["encodings"], 0),
            middle(each["known_view_s"], 3),
            middle(each["new_view_s"], 3),
        )
    return section


if __name__ == "__main__":
    main()
