"""The NTIRE challenge on real-world face restoration, 2025 and 2026: its gate on identity, and its score.

The gate compares AdaFace's embeddings of input and output; at most ten of all faces may be below the threshold of their
test set. The score is a sum of six parts, each of means over all faces, and FID of all faces to FFHQ.
"""

from collections.abc import Callable, Mapping

import numpy as np

from gpen_plugin.errors import OptionError
from gpen_plugin.evaluate.protocols import NTIRE_THRESHOLDS
from gpen_plugin.evaluate.results import Column, Results, with_unique_labels

MAX_BELOW = 10  # faces below the threshold that pass the gate
GATE = "identity"  # name of the metric of the gate
# of the score, by the name of the metric; NaN stays NaN
PARTS: dict[str, Callable[[float], float]] = {
    "clipiqa": lambda value: value,
    "maniqa": lambda value: value,
    "musiq": lambda value: value / 100,
    "niqe": lambda value: np.maximum(0, (10 - value) / 10),
    "qalign": lambda value: value / 5,
    "fid": lambda value: np.maximum(0, (100 - value) / 100),
}
SCORE = Column("ntire_score", "NTIRE score", lower_is_better=False, of_sets=True, decimals=4)
BELOW = Column("ntire_below", "Below threshold", lower_is_better=True, of_sets=True, decimals=0, ranked=False)


def check_metrics(metrics: Mapping) -> None:
    """OptionError unless an option file has the metrics of the gate and of the score, by their names."""
    missing = [name for name in (GATE, *PARTS) if name not in metrics]
    if missing:
        got = f"lacks {', '.join(missing)}"
        raise OptionError("metrics", got, "the metrics of the protocol ntire", "See options/evaluate/ntire.yml.")
    if metrics[GATE].get("against") != "input":
        got = f"got {metrics[GATE].get('against', 'gt')}"
        raise OptionError(f"metrics:{GATE}:against", got, "input, which the gate compares with")


def add_score(results: Results) -> None:
    """Add the columns of the gate and of the score, and a note for each method that fails the gate."""
    results.columns = with_unique_labels([*results.columns, BELOW, SCORE])
    columns = {column.name: column for column in results.columns}
    for row in results.rows:
        if not results.images.get(row.name):
            continue
        sets = results.sets.setdefault(row.name, {})
        below = count_below(results, row.name)
        for name, count in below.items():
            sets.setdefault(name, {})[BELOW.name] = count
        total = sum(below.values())
        values = {name: results.value(row.name, "", columns[name]) for name in PARTS}
        score = float(sum(part(values[name]) for name, part in PARTS.items()))
        sets.setdefault("", {})[BELOW.name] = total
        passes = total <= MAX_BELOW
        if passes:
            sets[""][SCORE.name] = score
        else:
            text = f"; its score would be {score:.{SCORE.decimals}f}" if np.isfinite(score) else ""
            below_text = "no face has a value" if np.isnan(total) else f"{total:.0f} faces are below the thresholds"
            results.notes.append(
                f"{row.name} fails the gate of NTIRE: {below_text}, and at most {MAX_BELOW} may be{text}."
            )


def count_below(results: Results, row: str) -> dict[str, float]:
    """Faces of each test set below its threshold; those without an image or a value count. NaN without any value."""
    values = dict(zip(results.keys, results.image_values(row, "", GATE), strict=True))
    if not np.isfinite(list(values.values())).any():
        return dict.fromkeys(results.test_sets, float("nan"))
    below = {
        name: [not values[key] >= NTIRE_THRESHOLDS[name] for key in keys] for name, keys in results.test_sets.items()
    }
    return {name: float(sum(each)) for name, each in below.items()}
