"""Is a retrained model better than the shipped one, on every row of its table?

    python -m benchmarks.gpu.compare bundles/fashion-mnist NEW

NEW and the other are bundles, or runs that were evaluated. Both have to be evaluated alike: the same data
set, samples, steps, seed and kind of device. Measurements must be better, counts no worse. Prints the table;
the exit status is 0 where NEW may ship, 1 where it may not, 2 where the two cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.bundle import MANIFEST

EVALUATION = "evaluation.json"
ALIKE = ("dataset", "num_samples", "steps", "seed", "device")

BETTER: Sequence[tuple[str, int]] = (
    (r"probe\.\w+", 1),
    (r"tad\.(tad|num_captured)", 1),
    (r"samples\.(fid|fd_classifier)_(?!real_)\w+", -1),
    (r"reconstruction\.\w+_(mse|lpips)", -1),
    (r"reconstruction\.\w+_(psnr_db|ssim)", 1),
    (r"conditioning\.t_\d+\.eps_loss_true", -1),
    (r"conditioning\.t_\d+\.gap", 1),
    (r"prototypes\.largest_correlation_mean", -1),
    (r"prototypes\.num_duplicates", -1),
    (r"prototypes\.raw_spread_(mean|min)", 1),
    (r"prototypes\.nearest_train_patch_distance_(mean|max)", -1),
)
"""The rows of a model's table, and whether more (1) or less (-1) is better. What depends on other things
than the model, such as the distance of real images, is no row."""


class ComparisonError(Exception):
    """The two were not evaluated alike, or not at all."""


@dataclass(frozen=True)
class Row:
    name: str
    shipped: float
    new: float
    direction: int

    @property
    def is_better(self) -> bool:
        gain = self.direction * (self.new - self.shipped)
        is_count = isinstance(self.shipped, int) and isinstance(self.new, int)
        return gain >= 0 if is_count else gain > 0  # a count may be at its best already


def read_metrics(directory: Path) -> dict[str, Any]:
    """Of a bundle's manifest, or of a run's evaluation. Raises ComparisonError."""
    for name in (MANIFEST, EVALUATION):
        path = directory / name
        if path.exists():
            values: dict[str, Any] = json.loads(path.read_text())
            return values["metrics"] if name == MANIFEST else values
    raise ComparisonError(f"{directory} holds neither {MANIFEST} nor {EVALUATION}")


def compare(shipped: Mapping[str, Any], new: Mapping[str, Any]) -> list[Row]:
    """The rows that the shipped model has. Raises ComparisonError."""
    for name in ALIKE:
        old_value, new_value = (metrics.get("measured", {}).get(name) for metrics in (shipped, new))
        if old_value != new_value:
            raise ComparisonError(f"{name} is {old_value!r} of the one, {new_value!r} of the other")
    found = dict(_flat(new))
    rows = []
    for name, value in _flat(shipped):
        for pattern, direction in BETTER:
            if re.fullmatch(pattern, name):
                if name not in found:
                    raise ComparisonError(f"{name} was measured of the shipped model, not of the new one")
                rows.append(Row(name, value, found[name], direction))
    if not rows:
        raise ComparisonError("the shipped model has no figure that could be compared")
    return rows


def table(rows: Sequence[Row]) -> str:
    lines = ["| row | shipped | new | better is | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "better" if row.is_better else "WORSE" if row.new != row.shipped else "the same"
        wanted = "more" if row.direction > 0 else "less"
        lines.append(f"| {row.name} | {row.shipped:.4g} | {row.new:.4g} | {wanted} | {verdict} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shipped", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    try:
        rows = compare(read_metrics(options.shipped), read_metrics(options.new))
    except ComparisonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    num_better = sum(row.is_better for row in rows)
    print(table(rows))
    print(f"\n{num_better} of {len(rows)} rows: {'ships' if num_better == len(rows) else 'does not ship'}")
    return 0 if num_better == len(rows) else 1


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers by their dotted names."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, value


if __name__ == "__main__":
    sys.exit(main())
