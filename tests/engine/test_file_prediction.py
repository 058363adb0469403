"""The engine predicts from file to file, beside all else, until it is told to end."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK
import zarr
from torch import nn

from benchmarks._files_large import loadable
from napari_sparseseg import api
from napari_sparseseg.engine import file_prediction, worker
from napari_sparseseg.engine.file_prediction import FilePrediction
from napari_sparseseg.engine.messages import (
    Alive,
    CancelFiles,
    CopyModel,
    Failed,
    FileDone,
    FileJob,
    FileProgress,
    FilesDone,
    FolderJob,
    LoadModel,
    ModelCopied,
    ModelSaved,
    Predict,
    Predicted,
    PredictFiles,
    Shutdown,
    TileDone,
)
from napari_sparseseg.engine.worker import Worker
from napari_sparseseg.files import predict_file
from napari_sparseseg.prediction.large import ChunkPredictor
from napari_sparseseg.prediction.objects import without_small_objects
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image
from napari_sparseseg.prediction.uncertainty import entropy
from tests.prediction.test_predictor import random_network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sparseseg.networks.model import SegmentationModel

    Turns = Sequence[tuple[Callable[[Any], bool], list[Any]]]

pytestmark = pytest.mark.timeout(60)

SHAPE = (4, 40, 48)


@pytest.fixture(scope="module")
def volume() -> NDArray[np.int16]:
    noise = np.random.default_rng(0).normal(0, 300, SHAPE)
    return noise.astype(np.int16)


@pytest.fixture(scope="module")
def model(volume: NDArray[np.int16]) -> SegmentationModel:
    return loadable(random_network(volume[0], 0.5))


def is_a(kind: type) -> Callable[[Any], bool]:
    return lambda event: isinstance(event, kind)


class Engine:
    """Asks a worker; answers come from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Any] = []
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def play(self, *requests: Any, turns: Turns = ()) -> None:
        """Send requests, and those of each turn as soon as its event is there."""
        left = [*turns, (is_a(FilesDone), [Shutdown()])]

        def take(event: Any) -> None:
            self.events.append(event)
            if left and left[0][0](event):
                for each in left.pop(0)[1]:
                    self._requests.put(each)

        for request in (LoadModel(path=str(self.folder / "m.safetensors")), *requests):
            self._requests.put(request)
        Worker(self._requests, take).run()

    def all_of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def engine(
    tmp_path: Path, volume: NDArray[np.int16], model: SegmentationModel
) -> Engine:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(volume), str(tmp_path / "a.nrrd"))
    api.save_model(model, tmp_path / "m.safetensors")
    return Engine(tmp_path)


def job_of(engine: Engine, out: str = "o.ome.zarr") -> FileJob:
    return FileJob(image=str(engine.folder / "a.nrrd"), out=str(engine.folder / out))


def test_a_file_is_predicted_as_by_the_command(
    engine: Engine, model: SegmentationModel
) -> None:
    job = job_of(engine)
    wishes: Any = {"smooth_planes": 0.5, "smallest_object": 4}
    engine.play(PredictFiles(generation=3, job=job, **wishes))
    (done,) = engine.all_of(FileDone)
    assert (done.generation, done.name, done.failure) == (3, "a.nrrd", "")
    assert done.paths == [job.out]
    told = engine.all_of(FileProgress)
    assert [told[0].done, told[-1].done] == [0, SHAPE[0]]
    assert told[-1].px_per_s > 0
    assert told[-1].left_s == 0
    expected = engine.folder / "e.ome.zarr"
    predict_file(model, job.image, expected, device="cpu", **wishes)
    found, alone = (
        zarr.open_array(f"{path}/0", mode="r")[...] for path in (job.out, expected)
    )
    np.testing.assert_array_equal(found, alone)


def test_a_folder_goes_on_where_one_fails(engine: Engine) -> None:
    (engine.folder / "b.nrrd").write_bytes(b"NRRD0004\nnothing")
    out = engine.folder / "out"
    job = FolderJob(images=str(engine.folder), out=str(out), suffix=".nii.gz")
    (engine.folder / "c.nrrd").write_bytes((engine.folder / "a.nrrd").read_bytes())
    engine.play(PredictFiles(generation=1, job=job))
    done = engine.all_of(FileDone)
    assert [(each.name, bool(each.failure)) for each in done] == [
        ("a.nrrd", False),
        ("b.nrrd", True),
        ("c.nrrd", False),
    ]
    assert (out / "c.nii.gz").exists()
    assert not (out / "b.nii.gz").exists()


def test_a_folder_without_images_is_told(engine: Engine) -> None:
    (engine.folder / "empty").mkdir()
    job = FolderJob(images=str(engine.folder / "empty"), out="o", suffix=".tif")
    engine.play(PredictFiles(generation=1, job=job))
    (failed,) = engine.all_of(Failed)
    assert failed.request == "predict-files"
    assert "no image in" in failed.message


def test_during_a_long_step_the_engine_is_heard_and_cancel_ends_after_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ALIVE_S", 0.05)
    monkeypatch.setattr(file_prediction, "TOLD_S", 0.0)
    goes_on = threading.Event()
    predict = ChunkPredictor.predict

    def slow(self: ChunkPredictor, run: Any) -> Any:
        yield from predict(self, run)
        goes_on.wait(20)

    monkeypatch.setattr(ChunkPredictor, "predict", slow)

    def is_heard(event: Any) -> bool:
        told = engine.all_of(FileProgress)
        return isinstance(event, Alive) and bool(told) and told[-1].done == 1

    def lets_go(event: Any) -> bool:
        if isinstance(event, Alive):
            goes_on.set()
        return isinstance(event, Alive)

    engine.play(
        PredictFiles(generation=1, job=job_of(engine)),
        turns=[(is_heard, [CancelFiles()]), (is_a(Alive), []), (lets_go, [])],
    )
    assert not engine.all_of(FileDone)
    assert engine.all_of(FileProgress)[-1].done == 1
    # What is finished is taken up.
    engine.play(PredictFiles(generation=2, job=job_of(engine)))
    first = next(each for each in engine.all_of(FileProgress) if each.generation == 2)
    assert first.done == 1


def test_cancel_ends_it_between_two_layers(
    engine: Engine, model: SegmentationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, layers = threading.Event(), []
    events: list[Any] = []
    forward = nn.Conv2d.forward

    def first_of_many(layer: nn.Conv2d, x: Tensor) -> Tensor:
        layers.append(layer)
        begun.wait(20)
        prediction.cancel()
        return forward(layer, x)

    monkeypatch.setattr(nn.Conv2d, "forward", first_of_many)
    job = job_of(engine)
    request = PredictFiles(generation=4, job=job)
    prediction = FilePrediction(request, model, events.append)
    begun.set()
    prediction.wait()
    assert len(layers) == 1
    assert [type(each) for each in events] == [FileProgress, FilesDone]
    # Nobody else is stopped by it, and what it had locked is free.
    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    predict_image(model, np.zeros((40, 48), np.int16))
    engine.play(PredictFiles(generation=5, job=job))
    assert engine.all_of(FileDone)[-1].paths == [job.out]


def test_cancel_does_not_wait_for_imports(
    engine: Engine, model: SegmentationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_imported = threading.Event()
    events: list[Any] = []
    monkeypatch.setattr(file_prediction, "_import_slow", lambda: is_imported.wait(20))
    file_prediction._start_imports.cache_clear()
    request = PredictFiles(generation=4, job=job_of(engine))
    prediction = FilePrediction(request, model, events.append)
    prediction.cancel()
    prediction.wait()
    assert not is_imported.is_set()
    assert events == [FilesDone(generation=4)]
    is_imported.set()
    # The next one waits for the same imports.
    FilePrediction(request, model, events.append).wait()
    assert isinstance(events[-2], FileDone)


def test_a_copy_of_the_model_does_not_count_as_saved(engine: Engine) -> None:
    copy = engine.folder / "copy.safetensors"
    engine.play(CopyModel(path=str(copy)), turns=[(is_a(ModelCopied), [Shutdown()])])
    assert [each.path for each in engine.all_of(ModelCopied)] == [str(copy)]
    assert not engine.all_of(ModelSaved)
    assert copy.read_bytes() == (engine.folder / "m.safetensors").read_bytes()


def test_a_plane_is_told_again_without_small_objects(
    engine: Engine, volume: NDArray[np.int16], model: SegmentationModel
) -> None:
    paths = [str(engine.folder / f"{name}.npy") for name in ("x", "labels", "sure")]
    np.save(paths[0], volume[0])
    np.save(paths[1], np.zeros(SHAPE[1:], np.uint8))
    np.save(paths[2], np.zeros(SHAPE[1:], np.float32))
    request = Predict(
        generation=5,
        pixels=paths[0],
        labels=paths[1],
        confidence=paths[2],
        sureness="uncertainty",
        smallest_object=9,
    )
    engine.play(request, turns=[(is_a(Predicted), [Shutdown()])])
    labels, probabilities = predict_image(
        model, volume[0], PredictOptions(probabilities=True)
    )
    assert probabilities is not None
    expected = without_small_objects(labels, 9)
    assert (expected != labels).any()
    np.testing.assert_array_equal(np.load(paths[1]), expected)
    np.testing.assert_allclose(np.load(paths[2]), entropy(probabilities), atol=1e-5)
    last = engine.all_of(TileDone)[-1]
    assert (last.region, last.share) == ((0, 0, *SHAPE[1:]), 1.0)
