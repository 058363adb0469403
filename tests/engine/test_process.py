"""The engine as a process of its own: from Ready to its end, wanted or not."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil
import pytest

import napari_sparseseg
from napari_sparseseg.engine import process
from napari_sparseseg.engine.__main__ import NICENESS
from napari_sparseseg.engine.messages import (
    EVENTS,
    REQUESTS,
    Alive,
    CheckpointWritten,
    Event,
    Failed,
    HeadFitted,
    ModelSaved,
    PhaseChanged,
    Predict,
    Predicted,
    PutImage,
    Ready,
    Request,
    SaveModel,
    Start,
    Starting,
    Stop,
    TrainingSettings,
    UseClasses,
    read_message,
    write_message,
)
from napari_sparseseg.engine.process import EngineProcess, interpreter
from napari_sparseseg.errors import EngineError
from napari_sparseseg.samples import Sample, tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)

T = TypeVar("T")

SOURCE = Path(napari_sparseseg.__file__).parents[1]

SETTINGS = TrainingSettings(preset="light", scale=0.25, patch_px=16, device="cpu")

#: Stands in for the engine: says that it is ready, then does what stands after it.
STAND_IN = """
import sys, time
from napari_sparseseg.engine.messages import *
out = sys.stdout.buffer
write_message(out, Ready(versions={}, devices=["cpu"], device_names=[""]), EVENTS)
"""


@pytest.fixture(autouse=True)
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other programs import the project, installed or not; one thread each."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Engine:
    """An engine process and what came from it."""

    def __init__(self, folder: Path, stand_in: str | None = None) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.exits: queue.Queue[tuple[int, str]] = queue.Queue()
        command = (
            None if stand_in is None else (sys.executable, "-c", STAND_IN + stand_in)
        )
        self.process = EngineProcess(
            on_event=self.events.put,
            on_exit=lambda code, lines: self.exits.put((code, lines)),
            log_path=folder / "engine.log",
            command=command,
        )

    def wait_for(self, kind: type[T]) -> T:
        while True:
            event = self.events.get(timeout=60)
            assert not isinstance(event, Failed) or kind is Failed, event
            if isinstance(event, kind):
                return event

    def send(self, *requests: Request) -> None:
        for request in requests:
            self.process.send(request)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    started = Engine(tmp_path)
    started.process.start()
    yield started
    started.process.stop()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def inputs(folder: Path, sample: Sample) -> tuple[Request, ...]:
    np.save(folder / "pixels.npy", sample.image)
    np.save(folder / "labels.npy", sample.labels)
    return (
        UseClasses(classes=sample.classes.to_json()),
        PutImage(
            name="a",
            pixels=str(folder / "pixels.npy"),
            labels=str(folder / "labels.npy"),
        ),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_it_learns_predicts_is_killed_and_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    sample = tissue_phantom(0, (128, 128))
    checkpoint = tmp_path / "checkpoint.safetensors"
    result, model_path = tmp_path / "result.npy", tmp_path / "model.safetensors"
    np.save(result, np.zeros(sample.labels.shape, np.uint8))
    shared = np.load(result, mmap_mode="r")
    predict = Predict(
        generation=3, pixels=str(tmp_path / "pixels.npy"), labels=str(result)
    )
    # What gives way cannot import where other programs take all cores.
    assert engine.wait_for(Starting).module == "torch"
    assert psutil.Process(engine.process.pid).nice() == os.nice(0)
    ready = engine.wait_for(Ready)
    assert "cpu" in ready.devices
    assert len(ready.devices) == len(ready.device_names)
    assert ready.versions["torch"]
    start = Start(settings=SETTINGS, checkpoint=str(checkpoint))
    engine.send(*inputs(tmp_path, sample), start)
    engine.wait_for(HeadFitted)
    engine.send(predict)
    assert engine.wait_for(Predicted).shown == "head"
    assert psutil.Process(engine.process.pid).nice() == os.nice(0) + NICENESS
    assert set(np.unique(shared)) <= set(sample.classes.values)

    written = engine.wait_for(CheckpointWritten)
    first = engine.process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    code, _ = engine.exits.get(timeout=10)
    assert code == -signal.SIGKILL
    assert engine.process.pid is None

    engine.process.start()
    engine.wait_for(Ready)
    again = Start(settings=SETTINGS, checkpoint=str(checkpoint), resume=True)
    engine.send(*inputs(tmp_path, sample), again)
    assert engine.wait_for(PhaseChanged).phase == "preparing"
    running = engine.wait_for(PhaseChanged)
    assert running.phase == "running"
    assert running.step == written.step + 1

    asked = time.monotonic()
    engine.send(Stop())
    assert engine.wait_for(PhaseChanged).phase == "idle"
    assert time.monotonic() - asked < 1
    engine.send(predict, SaveModel(path=str(model_path)))
    engine.wait_for(ModelSaved)
    engine.wait_for(Predicted)
    assert_result_is_of(model_path, sample, shared)


def assert_result_is_of(model_path: Path, sample: Sample, result: Any) -> None:
    from napari_sparseseg.io.model_file import load_model
    from napari_sparseseg.prediction.predictor import predict_image

    labels, _ = predict_image(load_model(model_path), sample.image)
    assert (labels == result).all()


def test_it_ends_when_its_input_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        engine = subprocess.Popen(
            [sys.executable, "-m", "napari_sparseseg.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert engine.stdin is not None
    assert engine.stdout is not None
    with engine.stdout as events:
        while not isinstance(event := read_message(events, EVENTS), Ready):
            assert isinstance(event, Starting)
        for request in inputs(tmp_path, tissue_phantom(0, (128, 128))):
            write_message(engine.stdin, request, REQUESTS)
        start = Start(settings=SETTINGS, checkpoint=str(tmp_path / "checkpoint"))
        write_message(engine.stdin, start, REQUESTS)
        preparing = read_message(events, EVENTS)
        assert isinstance(preparing, PhaseChanged)
        assert preparing.phase == "preparing"
        engine.stdin.close()
        assert engine.wait(10) == 0


def test_it_ends_at_once_while_it_still_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "torch.py").write_text(
        f"import time\nopen({str(begun)!r}, 'w')\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(SOURCE)]))
    engine = subprocess.Popen(
        [sys.executable, "-m", "napari_sparseseg.engine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert engine.stdin is not None
    while not begun.exists():
        assert engine.poll() is None
        time.sleep(0.02)
    engine.stdin.close()
    try:
        assert engine.wait(10) == 0
    finally:
        engine.kill()


@pytest.fixture
def torch_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, findable: None
) -> None:
    """Let other programs find a torch that prints, and cannot be imported."""
    (tmp_path / "torch.py").write_text(
        "import os, sys\n"
        "print('printed by Python')\n"
        "os.write(1, b'written by a library\\n')\n"
        "os.system('echo told by a program')\n"
        "raise OSError('libcudart.so is missing')\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(SOURCE)]))


@pytest.mark.usefixtures("torch_that_fails")
def test_what_cannot_be_imported_is_named_and_what_it_printed_is_in_the_log(
    tmp_path: Path,
) -> None:
    engine = Engine(tmp_path)
    engine.process.start()
    failed = engine.wait_for(Failed)
    assert failed.request == "ready"
    assert failed.message == (
        "torch cannot be imported (libcudart.so is missing); install it with "
        "`pip install torch`."
    )
    code, lines = engine.exits.get(timeout=10)
    assert code == 1
    for words in ("printed by Python", "written by a library", "told by a program"):
        assert words in lines
        assert words in (tmp_path / "engine.log").read_text()


@pytest.mark.usefixtures("torch_that_fails")
def test_it_is_started_from_a_script_without_a_guard_which_runs_once(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import queue\n"
        "from pathlib import Path\n"
        "from napari_sparseseg.engine.process import EngineProcess\n"
        "print('the script runs', flush=True)\n"
        "events = queue.Queue()\n"
        f"log = Path({str(tmp_path / 'log')!r})\n"
        "engine = EngineProcess(events.put, lambda *_: None, log)\n"
        "engine.start()\n"
        "pid = engine.pid\n"
        "while (kind := type(events.get(timeout=60)).__name__) == 'Starting':\n"
        "    pass\n"
        "print(kind, pid)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    told, (kind, pid) = done.stdout.splitlines()[0], done.stdout.split()[-2:]
    assert told == "the script runs"
    assert done.stdout.count("the script runs") == 1
    assert kind == "Failed"  # as its torch does, which is quicker than a real one
    assert not is_running(int(pid))
    assert done.stderr == ""


def test_an_end_that_nobody_asked_for_is_told_with_the_last_lines(
    tmp_path: Path,
) -> None:
    engine = Engine(tmp_path, "print('why', file=sys.stderr); sys.exit(3)")
    engine.process.start()
    assert engine.exits.get(timeout=10) == (3, "why\n")
    assert engine.process.pid is None
    engine.send(Stop())  # of no effect
    engine.process.stop()
    assert engine.exits.empty()


def test_what_cannot_be_understood_ends_the_engine(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "print('Downloading', flush=True); time.sleep(60)")
    engine.process.start()
    _, lines = engine.exits.get(timeout=10)
    assert "something else writes to the standard output" in lines


def test_an_engine_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PATIENCE_S", 0.2)
    engine = Engine(
        tmp_path,
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "write_message(out, Alive(), EVENTS); time.sleep(60)",
    )
    engine.process.start()
    engine.wait_for(Alive)
    pid = engine.process.pid
    assert pid is not None
    engine.process.stop(0.1)
    assert not is_running(pid)
    assert engine.exits.empty()


def test_a_restart_gives_another_process_without_an_exit(tmp_path: Path) -> None:
    engine = Engine(tmp_path, "time.sleep(60)")
    engine.process.start()
    engine.wait_for(Ready)
    first, heard = engine.process.pid, engine.process.last_heard
    engine.process.restart()
    engine.wait_for(Ready)
    assert engine.process.pid != first
    assert engine.process.last_heard > heard
    engine.process.kill()
    code, _ = engine.exits.get(timeout=10)
    assert code != 0
    assert engine.exits.empty()


def test_what_is_sent_arrives(tmp_path: Path) -> None:
    engine = Engine(
        tmp_path,
        "request = read_message(sys.stdin.buffer, REQUESTS)\n"
        "failed = Failed(request=request.kind, message=request.path)\n"
        "write_message(out, failed, EVENTS)\n",
    )
    engine.process.start()
    engine.send(SaveModel(path="µ"))
    assert engine.wait_for(Failed) == Failed(request="save-model", message="µ")
    assert engine.exits.get(timeout=10)[0] == 0


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    missing = EngineProcess(print, print, tmp_path / "log", ["/no/such/python"])
    with pytest.raises(EngineError, match="/no/such/python"):
        missing.start()
    assert missing.pid is None


def test_the_interpreter_is_found_where_a_program_embeds_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert interpreter() == sys.executable
    for executable in ("", str(tmp_path / "napari")):
        monkeypatch.setattr(sys, "executable", executable)
        found = subprocess.run(
            [interpreter(), "-c", "import sys; print(sys.exec_prefix)"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == sys.exec_prefix
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    with pytest.raises(EngineError, match="start napari from a Python environment"):
        interpreter()
