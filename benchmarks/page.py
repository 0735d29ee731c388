"""The page of results: what the benchmarks found, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from comparison import Comparison, Plot
from telling import VERDICTS, arithmetic, memory, spread, throughput, wanted

HOW_TO_READ = (
    "Reference ops are plain PyTorch; The reference, below, tells what they cost against BasicSR's own generator. "
    "Folded is a network as `gpen-restore` runs it. Both arms of a row run in turns within one process, so that a busy "
    "machine slows both: read the ratio, which is the median over the rounds' pairs and tells how many times as long "
    "the baseline takes. Times are medians, with the lowest and the highest round behind them. Peak memory is the "
    "growth of the resident peak in a process of its own, on a GPU the allocator's. A multiply-add counts as two "
    "operations; the measured peak is that of a large 3x3 convolution in the same run. A GPU that is timed convolves "
    "float32 in TF32, which is PyTorch's default."
)
HEADINGS = ("what", "baseline", "ours", "ratio", "target", "memory", "rate")


@dataclass(frozen=True)
class Part:
    """What one benchmark found.

    Attributes:
        script: its name.
        title: of its part of the page.
        machine: what it ran on, fact by name.
        settings: device, threads and rounds, in words.
        comparisons: its rows.
        plots: its images.
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
            found["settings"],
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
    blocks = ["# Results", f"Written by `make bench` on {day.isoformat()}, in {minutes:.0f} minutes.", _verdicts(parts)]
    blocks += [f"**{part.script}.py failed:** {_cell(part.failure)}" for part in parts if part.failure]
    blocks += [_machine(parts), HOW_TO_READ]
    blocks += [_section(part) for part in parts if not part.failure]
    left_out = [line for part in parts for line in part.left_out]
    if left_out:
        blocks += ["## Left out because it did not pay", "\n".join(f"- {_sentence(line)}" for line in left_out)]
    return "\n\n".join(blocks) + "\n"


def _verdicts(parts: Sequence[Part]) -> str:
    """Which targets are met, which are not, and which were not measured."""
    rows = [row for part in parts for row in part.comparisons if wanted(row)]
    named = {verdict: [row.what for row in rows if row.met is met] for met, verdict in VERDICTS.items()}
    told = [(f"{verdict} ({len(names)} of {len(rows)})", names) for verdict, names in named.items() if names]
    return "\n".join(f"- {verdict}: {'; '.join(names)}" for verdict, names in told)


def _machine(parts: Sequence[Part]) -> str:
    facts = {name: fact for part in parts for name, fact in (part.machine or {}).items()}
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _section(part: Part) -> str:
    blocks = [f"## {part.title}", f"`benchmarks/{part.script}.py`: {part.settings}."]
    if part.comparisons:
        rows = [HEADINGS, ("---",) * len(HEADINGS), *(_row(each) for each in part.comparisons)]
        blocks.append("\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows))
    notes = [(row.what, [_sentence(fact) for fact in (row.error, row.note) if fact]) for row in part.comparisons]
    lines = [f"- {what}: {' '.join(facts)}" for what, facts in notes if facts]
    if lines:
        blocks.append("\n".join(lines))
    for plot in part.plots:
        blocks += [f"![{PurePosixPath(plot.file).stem}]({plot.file})", plot.line]
    return "\n\n".join(blocks)


def _row(row: Comparison) -> tuple[str, ...]:
    return (
        row.what,
        _arm(row.baseline, row.baseline_seconds),
        _arm(row.ours, row.our_seconds),
        f"{row.ratio:.2f}" if row.our_seconds else "",
        wanted(row).removeprefix("target "),
        memory(row).removeprefix("peak memory "),
        "; ".join(fact for fact in (throughput(row), arithmetic(row)) if fact),
    )


def _arm(words: str, seconds: Sequence[float]) -> str:
    return ": ".join(fact for fact in (words, spread(seconds) if seconds else "") if fact)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _cell(text: str) -> str:
    """A text that stays in its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
