"""Whatever is raised becomes one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psygnal import Signal

from napari_sparseseg.errors import LayerError, SparseSegError
from napari_sparseseg.gui import notify
from napari_sparseseg.gui.log import MOST_LETTERS
from napari_sparseseg.gui.notify import telling

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sentences: list[str] = []
    monkeypatch.setattr(notify, "show_error", sentences.append)
    return sentences


class Sender:
    changed = Signal()


def in_a_slot(error: Exception) -> Callable[[], None]:
    """Return what raises an error in a slot of a slot."""

    def fail() -> None:
        raise error

    inner, outer = Sender(), Sender()
    inner.changed.connect(fail)
    outer.changed.connect(lambda: inner.changed.emit())

    return lambda: outer.changed.emit()


def tell(error: BaseException) -> None:
    """Raise an error and tell it."""

    def fail() -> None:
        raise error

    with telling():
        fail()


def test_the_users_errors_are_told_as_they_are(told: list[str]) -> None:
    tell(SparseSegError("Two are needed; give another."))
    in_slot = telling()(in_a_slot(LayerError("It is gone; open it.")))
    in_slot()
    assert told == ["Two are needed; give another.", "It is gone; open it."]


def test_others_are_told_in_one_line_with_the_log(told: list[str]) -> None:
    tell(ValueError("a\n  b\nc"))
    telling()(in_a_slot(KeyError("x")))()
    tell(RuntimeError("y" * 1000))
    tell(RuntimeError())
    assert told[0].startswith("Something unexpected happened (ValueError: a b c);")
    assert told[0].endswith("window.log")
    assert "(KeyError: 'x')" in told[1]
    assert "While emitting" not in told[1]
    assert f"({'RuntimeError: ' + 'y' * MOST_LETTERS})" in told[2]
    assert "no more is known" in told[3]
    assert not any("\n" in sentence for sentence in told)


def test_what_ends_the_program_passes(told: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        tell(KeyboardInterrupt())
    assert not told


def test_a_decorated_function_goes_on_returning(told: list[str]) -> None:
    @telling()
    def half(number: int) -> int:
        if number % 2:
            raise SparseSegError("It is odd.")
        return number // 2

    assert half(4) == 2
    assert half(3) is None
    assert half(8) == 4
    assert told == ["It is odd."]
