"""Learning rates over steps and epochs, against the formulas of the papers."""

from collections.abc import Sequence

import pytest
import torch
from torch.optim import SGD

from napari_sparseseg.errors import OptionError
from napari_sparseseg.learning.schedules import (
    Schedule,
    build_schedule,
    end_epoch,
    end_step,
)

RATE = 0.08


def rates(
    schedule: Schedule, scores: Sequence[float | None], total_steps: int | None = None
) -> list[float]:
    """Give the rate after each epoch, of one step, with these validation scores."""
    optimiser = SGD([torch.zeros(1, requires_grad=True)], RATE)
    scheduler = build_schedule(optimiser, schedule, total_steps)
    found = []
    for score in scores:
        optimiser.step()
        end_step(scheduler)
        end_epoch(scheduler, score)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_constant_stays() -> None:
    assert rates("constant", [0.5] * 20) == [RATE] * 20


def test_plateau_is_halved_after_ten_epochs_without_a_better_score() -> None:
    # The first epoch sets the mark; ten without a better score follow.
    assert rates("plateau", [0.5] * 12) == [RATE] * 10 + [RATE / 2] * 2


def test_plateau_counts_anew_when_the_score_rises() -> None:
    assert rates("plateau", [0.5] * 9 + [0.6] * 10) == [RATE] * 19


def test_plateau_falls_again_and_again() -> None:
    assert rates("plateau", [0.5] * 31)[-1] == RATE / 8


def test_plateau_without_a_score_stays() -> None:
    assert rates("plateau", [None] * 30) == [RATE] * 30


def test_polynomial_is_that_of_fan_2022() -> None:
    expected = [RATE * (1 - step / 8) ** 0.9 for step in range(1, 9)]
    assert rates("polynomial", [None] * 8, 8) == pytest.approx(expected)


def test_exponential_is_that_of_abdulhamid() -> None:
    expected = [RATE * 0.96**epoch for epoch in range(1, 9)]
    assert rates("exponential", [0.5] * 8) == pytest.approx(expected)


def test_polynomial_needs_an_end() -> None:
    with pytest.raises(OptionError, match="no end; give a number of epochs"):
        rates("polynomial", [])


def test_an_unknown_schedule_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"'cosine'.*constant, plateau"):
        rates("cosine", [])  # type: ignore[arg-type]
