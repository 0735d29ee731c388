"""The page of results: what the benchmarks found, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from comparison import Comparison, Plot
from telling import arithmetic, duration, memory, spread, throughput

HOW_TO_READ = (
    "Both arms of a row run in turns within one process, so that a busy machine slows both: read the ratio, which is "
    "the median over the rounds' pairs. Times are medians, with the lowest and the highest round behind them. Peak "
    "memory is the growth of the resident peak in a process of its own, on a GPU the allocator's. A multiply-add "
    "counts as two operations; the measured peak is that of a large 3x3 convolution in the same run."
)
HEADINGS = ("what", "baseline", "ours", "ratio", "target", "met", "memory", "arithmetic")


@dataclass(frozen=True)
class Part:
    """What one benchmark found.

    Attributes:
        script: its name.
        title: of its part of the page.
        machine: what it ran on, fact by name.
        settings: device and threads, in words.
        comparisons: its rows.
        plots: its pictures.
        left_out: what was tried there and did not pay.
        failure: why there is nothing of all this; empty where there is.
    """

    script: str
    title: str = ""
    machine: Mapping[str, str] | None = None
    settings: str = ""
    comparisons: Sequence[Comparison] = ()
    plots: Sequence[Plot] = ()
    left_out: Sequence[str] = ()
    failure: str = ""

    @classmethod
    def read(cls, script: str, found: Mapping) -> "Part":
        """What `telling.report` wrote."""
        return cls(
            script,
            found["title"],
            found["machine"],
            f"{found['device']}, {found['threads']} threads",
            [Comparison(**row) for row in found["comparisons"]],
            [Plot(**plot) for plot in found["plots"]],
            found["left_out"],
        )


def page(parts: Sequence[Part], day: date, minutes: float) -> str:
    """The whole page.

    Args:
        parts: in their order.
        day: when they ran.
        minutes: how long all of them took.
    """
    held = [row.met for part in parts for row in part.comparisons if row.met is not None]
    summary = f"{day.isoformat()}, {minutes:.0f} minutes; {sum(held)} of the {len(held)} targets measured are met."
    blocks = ["# Results", f"Written by `make bench`. {summary}", _machine(parts), HOW_TO_READ]
    blocks += [f"**{part.script}.py failed:** {_cell(part.failure)}" for part in parts if part.failure]
    blocks += [_section(part) for part in parts if not part.failure]
    left_out = [line for part in parts for line in part.left_out]
    if left_out:
        blocks += ["## Left out because it did not pay", "\n".join(f"- {line}" for line in left_out)]
    return "\n\n".join(blocks) + "\n"


def _machine(parts: Sequence[Part]) -> str:
    """Facts that all benchmarks tell, and device and threads where a benchmark differs."""
    facts = {name: fact for part in parts for name, fact in (part.machine or {}).items()}
    settings = dict.fromkeys(part.settings for part in parts if part.settings)
    facts["run on"] = "; ".join(settings)
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _section(part: Part) -> str:
    blocks = [f"## {part.title}"]
    if part.comparisons:
        rows = [HEADINGS, ("---",) * len(HEADINGS), *(_row(each) for each in part.comparisons)]
        blocks.append("\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows))
    notes = [(row.what, [fact for fact in (row.error, row.note) if fact]) for row in part.comparisons]
    lines = [f"- {what}: {'; '.join(facts)}" for what, facts in notes if facts]
    if lines:
        blocks.append("\n".join(lines))
    for plot in part.plots:
        blocks += [f"![{plot.file}]({plot.file})", plot.line]
    return "\n\n".join(blocks)


def _row(row: Comparison) -> tuple[str, ...]:
    verdict = {True: "yes", False: "**no**", None: ""}[row.met]
    return (
        row.what,
        _arm(row.baseline, row.baseline_seconds),
        _arm(row.ours, row.our_seconds),
        f"{row.ratio:.2f}" if row.our_seconds else "",
        _target(row),
        verdict,
        memory(row).removeprefix("peak memory "),
        "; ".join(fact for fact in (throughput(row), arithmetic(row)) if fact),
    )


def _arm(words: str, seconds: Sequence[float]) -> str:
    return ": ".join(fact for fact in (words, spread(seconds) if seconds else "") if fact)


def _target(row: Comparison) -> str:
    told = [f"{row.target:g}"] if row.target is not None else []
    told += [f"{duration(row.limit)} at most"] if row.limit is not None else []
    told += [f"memory {row.memory_target:g}"] if row.memory_target is not None else []
    return ", ".join(told)


def _cell(text: str) -> str:
    """A text that stays in its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
