"""Boxes to pseudo-masks by every method, and what networks learn from the masks.

Pseudo-masks are compared with the truth inside the boxes of the train slices. With
``--train-steps`` networks learn the masks of each method, and the truth, and are
scored on the test slices. The dense CRF is timed by both its backends. Every run has a
process of its own. Finished runs are kept at once and are not repeated, so that a
benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

from benchmarks._boxes_crf import CASES, measure_crf
from benchmarks._boxes_data import SCALES
from benchmarks._boxes_masks import ROWS, MaskWishes, make_masks
from benchmarks._boxes_networks import FULL, NETWORKS, TrainWishes, train_network
from benchmarks._boxes_tables import sections
from benchmarks._learn_data import data_folder
from benchmarks._machine import in_fresh_process, machine, sentence, source_hash
from benchmarks._report import RESULTS, command_line, go_on, publish, write_json
from napari_sparseseg.learning.options import RecipeName
from napari_sparseseg.networks.network_names import BackboneName, Preset

Record = dict[str, Any]

#: What tells one run of a kind from another.
MASK_KEYS = ("set", "method", "seed")
NETWORK_KEYS = ("set", "row", "network", "seed", "steps", "preset", "recipe")
CRF_KEYS = ("side", "classes")


def main() -> None:
    """Run what is missing, then print the tables of all runs."""
    args = parse_arguments()
    suffix = "" if args.device == "cpu" else f"-{args.device}"
    path = args.results / f"boxes{suffix}.json"
    content = open_results(path, args)
    time_crf(content, path, args)
    for name in args.sets:
        folder = data_folder() / name
        if not folder.is_dir():
            print(
                f"skipped: real slices are not at {folder}; set SPARSESEG_DATA to the "
                "folder that holds the sets."
            )
            continue
        for seed in range(args.seeds):
            compare_masks(content, path, folder, seed, args)
            if args.train_steps:
                compare_networks(content, path, folder, seed, args)
    publish(path, *sections(content), *notes(content))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.boxes", description=__doc__)
    add = parser.add_argument
    add("--sets", nargs="+", choices=SCALES, default=[*SCALES], help="slices")
    add("--rows", nargs="+", choices=ROWS, default=[*ROWS], help="methods")
    add("--seeds", type=int, default=1, help="runs of each method")
    add("--slices", type=int, help="learn of so many; default all")
    add("--epochs", type=int, help="of each method; default its own")
    add("--backbone", choices=get_args(BackboneName), help="default: by the device")
    add("--weights", choices=["none", "imagenet"], default="none", help="of it")
    add(
        "--train-steps",
        type=int,
        default=0,
        help="of each network on each method's masks; 0 = none are trained",
    )
    add("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    add("--preset", choices=get_args(Preset), default="light", help="of the networks")
    add("--recipe", choices=get_args(RecipeName), default="live", help="likewise")
    add("--crf-runs", type=int, default=5, help="of each backend; 0 = none")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add(
        "--masks",
        type=Path,
        default=Path(tempfile.gettempdir()) / "napari-sparseseg-boxes",
        help="folder that keeps the pseudo-masks for networks to learn",
    )
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    add("--fresh", action="store_true", help="forget the runs done before")
    return parser.parse_args()


def open_results(path: Path, args: argparse.Namespace) -> Record:
    """Return the results of before, to go on with, or new ones without a run.

    Runs of other slices, epochs, backbones, devices or machines are not mixed.
    """
    settings = {
        "slices": args.slices,
        "epochs": args.epochs,
        "backbone": args.backbone,
        "weights": args.weights,
        "device": args.device,
        "machine": machine("napari-sparseseg", "torchvision", "pydensecrf2"),
    }
    return go_on(path, settings, ("masks", "networks", "crf"), fresh=args.fresh)


def time_crf(content: Record, path: Path, args: argparse.Namespace) -> None:
    """Time the dense CRF where that is not done yet."""
    if not args.crf_runs:
        return
    for side, n_classes in CASES:
        what = {"side": side, "classes": n_classes}
        if find(content["crf"], what, CRF_KEYS) is not None:
            continue
        case = in_fresh_process(
            measure_crf, side, n_classes, args.crf_runs, args.device
        )
        keep(content, "crf", path, what | case, 0.0)


def compare_masks(
    content: Record, path: Path, folder: Path, seed: int, args: argparse.Namespace
) -> None:
    """Make the pseudo-masks that are missing; networks need them as files, too."""
    wishes = MaskWishes(
        args.device, args.backbone, args.weights, args.epochs, args.slices
    )
    for method in dict.fromkeys(ROWS[row].method for row in args.rows):
        rows = [name for name, row in ROWS.items() if row.method == method]
        what = {"set": folder.name, "method": method, "seed": seed}
        record = find(content["masks"], what, MASK_KEYS)
        files = [mask_file(args, content, record, row) for row in rows if record]
        if record and (not args.train_steps or all(map(Path.exists, files))):
            continue
        if record:
            content["masks"].remove(record)
        started = time.perf_counter()
        new = what | {"source": source_hash()}
        paths = {row: mask_file(args, content, new, row) for row in rows}
        result = in_fresh_process(make_masks, folder, method, seed, wishes, paths)
        keep(content, "masks", path, new | result, time.perf_counter() - started)


def compare_networks(
    content: Record, path: Path, folder: Path, seed: int, args: argparse.Namespace
) -> None:
    """Train the networks that are missing on each method's masks, and on the truth."""
    wishes = TrainWishes(args.train_steps, args.preset, args.recipe, args.device)
    for row in (*args.rows, FULL):
        labels = None
        if row != FULL:
            made = {"set": folder.name, "method": ROWS[row].method, "seed": seed}
            record = find(content["masks"], made, MASK_KEYS)
            assert record is not None
            labels = mask_file(args, content, record, row)
        for network in args.networks:
            what = {
                "set": folder.name,
                "row": row,
                "network": network,
                "seed": seed,
                "steps": args.train_steps,
                "preset": args.preset,
                "recipe": args.recipe,
                "source": source_hash(),
            }
            if find(content["networks"], what, NETWORK_KEYS) is not None:
                continue
            started = time.perf_counter()
            result = in_fresh_process(
                train_network, folder, labels, args.slices, network, seed, wishes
            )
            passed = time.perf_counter() - started
            keep(content, "networks", path, what | result, passed)


def mask_file(
    args: argparse.Namespace, content: Record, record: Record, row: str
) -> Path:
    """Return where the label maps of a run are kept: of its settings and source."""
    runs = ("masks", "networks", "crf")
    settings = {key: value for key, value in content.items() if key not in runs}
    text = json.dumps([settings, record["source"]], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder: Path = args.masks
    return folder / f"{record['set']}-{row}-{record['seed']}-{digest}.npz"


def keep(
    content: Record, kind: str, path: Path, record: Record, seconds: float
) -> None:
    """Write a finished run down, and say so."""
    content[kind].append(record | {"command": command_line("boxes")})
    write_json(path, content)
    names = [str(record[key]) for key in KEYS[kind]]
    print(f"{kind}: {', '.join(names)}: done in {seconds:.0f} s", flush=True)


KEYS = {"masks": MASK_KEYS, "networks": NETWORK_KEYS, "crf": CRF_KEYS}


def notes(content: Record) -> list[str]:
    """Say what the runs were made on, with and of."""
    runs = [*content["masks"], *content["networks"]]
    sources = {run["source"] for run in runs}
    commands = dict.fromkeys(run["command"] for run in [*runs, *content["crf"]])
    mixed = f"CAUTION: runs of {len(sources)} states of the source"
    said = [sentence(content["machine"]), *commands]
    return [mixed, *said] if len(sources) > 1 else said


def find(runs: list[Record], what: Record, keys: tuple[str, ...]) -> Record | None:
    """Return the run that is the same in all *keys*, None where there is none."""
    return next((run for run in runs if all(run[k] == what[k] for k in keys)), None)


if __name__ == "__main__":
    main()
