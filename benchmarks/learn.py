"""How good after how many seconds: this project and its peers on the same strokes.

The time of every method counts all that happens between arrays in memory and being
able to predict; imports count for none, predicting is told apart. Every run has a
process of its own. Finished runs are kept at once and are not repeated, so that a
benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

from benchmarks._learn_data import STROKES, data_folder
from benchmarks._learn_methods import METHODS, can_run, run
from benchmarks._learn_tables import sections
from benchmarks._machine import machine, sentence, source_hash
from benchmarks._report import RESULTS, command_line, go_on, publish, write_json

MARKS = (5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

Record = dict[str, Any]


def main() -> None:
    """Run what is missing, then print the tables of all runs."""
    args = parse_arguments()
    folder = data_folder() / args.set
    if not folder.is_dir():
        print(
            f"skipped: real images are not at {folder}; set SPARSESEG_DATA to the "
            "folder that holds them."
        )
        return
    suffix = "" if args.device == "cpu" else f"-{args.device}"
    path = args.results / f"learn-{args.set}{suffix}.json"
    content = open_results(path, args)
    missing = [name for name in args.methods if not can_run(name, args)]
    content["not_installed"] = missing
    for seed in range(args.seeds):
        for name in args.methods:
            if name in missing or find(content, name, seed) is not None:
                continue
            started = time.perf_counter()
            record = {
                "method": name,
                "seed": seed,
                "command": command_line("learn"),
                "source": source_hash(),
            }
            result = run(METHODS[name], folder, seed, args)
            content["runs"].append(record | result)
            write_json(path, content)
            seconds = time.perf_counter() - started
            print(f"{name}, seed {seed}: done in {seconds:.0f} s", flush=True)
    publish(path, *sections(content), *notes(content))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("benchmarks.learn", description=__doc__)
    add = parser.add_argument
    add("--set", choices=STROKES, default="glas", help="images")
    add("--labels", help="folder of strokes; default 1 % of glas, 2.5 % of adp")
    add("--seeds", type=int, default=3, help="runs of each method")
    add("--marks", type=parse_marks, default=MARKS, help="seconds, as 5,10,30")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--device", default="cpu", help="of this project: cpu or cuda")
    add("--convpaint-python", help="an interpreter that has napari-convpaint")
    add("--results", type=Path, default=RESULTS, help="folder of the results")
    add("--fresh", action="store_true", help="forget the runs done before")
    args = parser.parse_args()
    args.labels = args.labels or STROKES[args.set]
    return args


def parse_marks(text: str) -> tuple[float, ...]:
    """Turn ``"5,10,30"`` into ascending numbers."""
    marks = tuple(sorted(float(part) for part in text.split(",")))
    if not all(mark > 0 and math.isfinite(mark) for mark in marks):
        raise argparse.ArgumentTypeError(f"{text}: marks are seconds above 0")
    return marks


def open_results(path: Path, args: argparse.Namespace) -> Record:
    """Return the results of before, to go on with, or new ones without a run.

    Runs of other labels, marks, devices or machines are not mixed.
    """
    settings = {
        "set": args.set,
        "labels": args.labels,
        "marks": list(args.marks),
        "device": args.device,
        "machine": machine("napari-sparseseg", "scikit-image", "scikit-learn"),
    }
    return go_on(path, settings, ("runs",), fresh=args.fresh)


def notes(content: Record) -> list[str]:
    """Say what the runs were made on, with and of."""
    sources = {run["source"] for run in content["runs"]}
    commands = dict.fromkeys(run["command"] for run in content["runs"])
    mixed = f"CAUTION: runs of {len(sources)} states of the source"
    said = [sentence(content["machine"]), *commands]
    return [mixed, *said] if len(sources) > 1 else said


def find(content: Record, method: str, seed: int) -> Record | None:
    """Return the run of a method and a seed, None where there is none."""
    runs = (r for r in content["runs"] if (r["method"], r["seed"]) == (method, seed))
    return next(runs, None)


if __name__ == "__main__":
    main()
