"""The batch sizes that are computed; a call with fewer rows is padded up to the next one."""

from __future__ import annotations


def bucket_sizes(max_batch: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48 … up to and including `max_batch`: at most a third is padding."""
    sizes = {1, max_batch}
    power = 2
    while power < max_batch:
        sizes |= {power, min(max_batch, power * 3 // 2)}
        power *= 2
    return tuple(sorted(sizes))
