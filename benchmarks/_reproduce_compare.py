"""Whether an order of methods that a paper found is found again.

Two methods are told apart when the mean difference of their scores, run by run with the
same seed, is larger than its spread: the largest minus the smallest difference. Runs of
one seed share images, first weights and draws as far as the methods allow.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    #: By seed.
    Runs = Mapping[int, float]

#: Published scores that differ by less, they are rounded, are the same; so are those of
#: one run each.
LEVEL = 0.005

Verdict = Literal[
    "as in the paper",
    "the other way round",
    "no clear difference, as in the paper",
    "a difference that the paper has not",
    "cannot be told apart",
    "same order, of one run each",
    "other order, of one run each",
    "no difference, of one run each",
    "not run",
]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a paper found of two methods.

    Attributes
    ----------
    first, second
        The methods.
    paper
        Published score of the first minus that of the second.
    """

    first: str
    second: str
    paper: float

    @property
    def is_level(self) -> bool:
        """Whether the paper found them the same."""
        return abs(self.paper) < LEVEL


@dataclass(frozen=True, slots=True)
class Difference:
    """How two methods differ over the seeds that both have.

    Attributes
    ----------
    mean
        Of the first minus the second.
    spread
        Largest minus smallest difference; None of a single seed.
    """

    mean: float
    spread: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the methods are told apart."""
        return self.spread is not None and abs(self.mean) > self.spread


def difference(first: Runs, second: Runs) -> Difference | None:
    """Return how two methods differ; None where they have no seed in common."""
    found = [first[seed] - second[seed] for seed in first if seed in second]
    if not found:
        return None
    spread = max(found) - min(found) if len(found) > 1 else None
    return Difference(mean(found), spread)


def verdict(claim: Claim, found: Difference | None) -> Verdict:
    """Tell whether a difference is that of the paper."""
    if found is None:
        return "not run"
    same_sign = (found.mean > 0) == (claim.paper > 0)
    if found.spread is None:
        if abs(found.mean) < LEVEL:
            return "no difference, of one run each"
        if same_sign and not claim.is_level:
            return "same order, of one run each"
        return "other order, of one run each"
    if claim.is_level:
        return (
            "a difference that the paper has not"
            if found.is_clear
            else "no clear difference, as in the paper"
        )
    if not found.is_clear:
        return "cannot be told apart"
    return "as in the paper" if same_sign else "the other way round"


def judge(
    claims: Iterable[Claim], runs: Mapping[str, Runs]
) -> list[tuple[Claim, Difference | None, Verdict]]:
    """Compare each claim with the runs of its methods."""
    judged = []
    for claim in claims:
        found = difference(runs.get(claim.first, {}), runs.get(claim.second, {}))
        judged.append((claim, found, verdict(claim, found)))
    return judged


def tally(verdicts: Iterable[Verdict]) -> str:
    """Count verdicts in words, the most frequent first."""
    counts = Counter(verdicts).most_common()
    return "; ".join(f"{count} {name}" for name, count in counts)
