"""Learning rates over steps and epochs, against the formulas of the papers."""

from collections.abc import Sequence

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import PolynomialLR

from napari_sparseseg.errors import OptionError
from napari_sparseseg.learning.schedules import (
    Schedule,
    build_schedule,
    end_at,
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


def torchs_polynomial(total_steps: int, steps: int) -> list[float]:
    """Give the rate before each step, and after the last."""
    optimiser = SGD([torch.zeros(1, requires_grad=True)], RATE)
    scheduler = PolynomialLR(optimiser, total_steps, 0.9)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return [*found, optimiser.param_groups[0]["lr"]]


@pytest.mark.parametrize("steps", [0, 3, 8])
@pytest.mark.parametrize("end", [4, 8, 20])
def test_a_polynomial_with_another_end_is_what_it_would_have_been(
    steps: int, end: int
) -> None:
    optimiser = SGD([torch.zeros(1, requires_grad=True)], RATE)
    scheduler = build_schedule(optimiser, "polynomial", 8)
    for _ in range(steps):
        optimiser.step()
        end_step(scheduler)
    end_at(scheduler, end)
    rates = [optimiser.param_groups[0]["lr"]]
    for _ in range(steps, end):
        optimiser.step()
        end_step(scheduler)
        rates.append(optimiser.param_groups[0]["lr"])
    expected = torchs_polynomial(end, max(steps, end))[steps:]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_other_schedules_have_no_end() -> None:
    optimiser = SGD([torch.zeros(1, requires_grad=True)], RATE)
    others: tuple[Schedule, ...] = ("constant", "plateau", "exponential")
    for schedule in others:
        scheduler = build_schedule(optimiser, schedule, None)
        before = scheduler.state_dict()
        end_at(scheduler, 3)
        assert scheduler.state_dict() == before
    assert optimiser.param_groups[0]["lr"] == RATE


def test_exponential_is_that_of_abdulhamid() -> None:
    expected = [RATE * 0.96**epoch for epoch in range(1, 9)]
    assert rates("exponential", [0.5] * 8) == pytest.approx(expected)


def test_polynomial_needs_an_end() -> None:
    with pytest.raises(OptionError, match="no end; give a number of epochs"):
        rates("polynomial", [])


def test_an_unknown_schedule_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"'cosine'.*constant, plateau"):
        rates("cosine", [])  # type: ignore[arg-type]
