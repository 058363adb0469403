"""Tables of Markdown, and the numbers and words in them."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from benchmarks._reproduce_compare import judge, tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks._reproduce_compare import Claim, Difference, Runs, Verdict

NOT_RUN = "not run"


def markdown_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1
) -> str:
    """Return a table whose first *left* columns hold words, all else numbers."""
    rules = ["---" if place < left else "---:" for place in range(len(columns))]
    lines = [columns, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score_cell(values: Iterable[float], digits: int = 3) -> str:
    """Write the mean, and below it the range when there are several values."""
    known = list(values)
    if not known:
        return NOT_RUN
    text = f"{mean(known):.{digits}f}"
    if len(known) > 1:
        text += f"<br><sub>{min(known):.{digits}f}-{max(known):.{digits}f}</sub>"
    return text


def difference_cell(found: Difference | None) -> str:
    """Write a difference and its spread."""
    if found is None:
        return NOT_RUN
    if found.spread is None:
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} (spread {found.spread:.3f})"


def claims_table(
    claims: Sequence[Claim],
    columns: Mapping[str, Mapping[str, Runs]],
    titles: Mapping[str, str] | None = None,
) -> str:
    """Lay each claim of a paper beside what was measured.

    Parameters
    ----------
    claims
        The differences that the paper found.
    columns
        Runs by method, for each column of the table.
    titles
        Of the methods, where they are not called by their names.
    """
    names = titles or {}
    judged = {title: judge(claims, runs) for title, runs in columns.items()}
    heads = ["first - second", "paper"]
    for title in columns:
        heads += [title, "so it is"]
    rows = []
    for place, claim in enumerate(claims):
        row = [
            f"{names.get(claim.first, claim.first)} - "
            f"{names.get(claim.second, claim.second)}",
            f"{claim.paper:+.3f}",
        ]
        for found in judged.values():
            _, difference, verdict = found[place]
            row += [difference_cell(difference), verdict]
        rows.append(row)
    return markdown_table(heads, rows)


def order_sentences(
    where: str,
    claims: Sequence[Claim],
    runs: Mapping[str, Runs],
    titles: Mapping[str, str] | None = None,
) -> list[str]:
    """Say for each verdict of which comparisons it was, the counts before all else."""
    names = titles or {}
    by_verdict: dict[Verdict, list[str]] = {}
    for claim, difference, verdict in judge(claims, runs):
        first, second = (names.get(n, n) for n in (claim.first, claim.second))
        by_verdict.setdefault(verdict, []).append(in_words(first, second, difference))
    if set(by_verdict) == {NOT_RUN}:
        return [f"{where}: not run."]
    verdicts = [verdict for verdict, said in by_verdict.items() for _ in said]
    lines = [f"{where}: {len(verdicts)} comparisons: {tally(verdicts)}."]
    lines += [
        f"- {verdict}: {'; '.join(said)}."
        for verdict, said in by_verdict.items()
        if verdict != NOT_RUN
    ]
    return lines


def in_words(first: str, second: str, found: Difference | None) -> str:
    """Say which of two methods has the higher score, and by how much."""
    if found is None:
        return f"*{first}* and *{second}*"
    if found.mean < 0:
        first, second = second, first
    return f"*{first}* {abs(found.mean):.3f} above *{second}*"
