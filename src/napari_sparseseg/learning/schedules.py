"""Learning rates over time, by torch's own schedulers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from torch.optim.lr_scheduler import (
    ConstantLR,
    ExponentialLR,
    LRScheduler,
    PolynomialLR,
    ReduceLROnPlateau,
)

from napari_sparseseg.errors import OptionError

if TYPE_CHECKING:
    from torch.optim import Optimizer

Schedule = Literal["constant", "plateau", "polynomial", "exponential"]

#: The learning rate is halved when the score has not risen for so many epochs
#: (Bokhorst 2018, section 3 "Training").
PATIENCE, HALVED = 10, 0.5

#: Fan 2022, section 3.3: ``(1 - iter / max_iter) ** 0.9``.
POLYNOMIAL_POWER = 0.9

#: Abdulhamid: factor an epoch.
EXPONENTIAL_DECAY = 0.96


def build_schedule(
    optimiser: Optimizer, schedule: Schedule, total_steps: int | None
) -> LRScheduler:
    """Return the scheduler of an optimiser, for `end_step` and `end_epoch`.

    Parameters
    ----------
    optimiser
        Whose learning rate is changed.
    schedule
        ``"constant"``; ``"plateau"``, halved after 10 epochs without a better score;
        ``"exponential"``, times 0.96 an epoch; ``"polynomial"``, step by step to 0 at
        *total_steps*.
    total_steps
        Mini-batches of the whole training, needed for ``"polynomial"``.

    Raises
    ------
    OptionError
        For another *schedule*, or ``"polynomial"`` without an end.
    """
    if schedule == "constant":
        return ConstantLR(optimiser, factor=1.0)
    if schedule == "plateau":
        # torch's patience is the number of epochs that are still forgiven.
        return ReduceLROnPlateau(
            optimiser, mode="max", factor=HALVED, patience=PATIENCE - 1
        )
    if schedule == "exponential":
        return ExponentialLR(optimiser, EXPONENTIAL_DECAY)
    if schedule != "polynomial":
        raise OptionError(
            f"the schedule is {schedule!r}; expected one of "
            f"{', '.join(get_args(Schedule))}."
        )
    if total_steps is None:
        raise OptionError(
            "the polynomial schedule falls to 0 at the last step, but the training "
            "has no end; give a number of epochs."
        )
    return PolynomialLR(optimiser, total_steps, POLYNOMIAL_POWER)


def end_step(scheduler: LRScheduler) -> None:
    """Tell *scheduler* that the weights were moved by a mini-batch."""
    if isinstance(scheduler, PolynomialLR):
        scheduler.step()


def end_at(scheduler: LRScheduler, total_steps: int) -> None:
    """Let a polynomial schedule fall to 0 at another step than it was built for.

    From now on the learning rate is what it would be, had it been built for that step;
    other schedules have no end.
    """
    if not isinstance(scheduler, PolynomialLR) or scheduler.total_iters == total_steps:
        return
    before = _share_left(scheduler)
    scheduler.total_iters = total_steps
    after = _share_left(scheduler)
    for group in scheduler.optimizer.param_groups:
        # Of a rate that has fallen to 0 only the first one is still known.
        full = group["lr"] / before if before > 0 else group["initial_lr"]
        group["lr"] = full * after


def go_on_from(scheduler: LRScheduler, before: LRScheduler) -> None:
    """Let a new schedule, from its first learning rate, stand where another stood."""
    scheduler.last_epoch = before.last_epoch
    if isinstance(scheduler, PolynomialLR) and isinstance(before, PolynomialLR):
        scheduler.total_iters = before.total_iters
        for group in scheduler.optimizer.param_groups:
            group["lr"] *= _share_left(scheduler)


def _share_left(scheduler: PolynomialLR) -> float:
    """Return the share of the first learning rate that a schedule leaves now."""
    passed = min(1.0, scheduler.last_epoch / scheduler.total_iters)
    return float((1.0 - passed) ** scheduler.power)


def end_epoch(scheduler: LRScheduler, score: float | None) -> None:
    """Tell *scheduler* that an epoch with this validation *score* is over."""
    if isinstance(scheduler, ReduceLROnPlateau):
        if score is not None:
            scheduler.step(score)
    elif not isinstance(scheduler, PolynomialLR):
        scheduler.step()
