"""Which samples have the rows: those that are due first.

A job that runs alone needs `steps` ticks, times the number of batches it fills. It is due when it has
taken a few times as long as that, counted in ticks of its lane from the moment it came:

    due = tick at arrival + STRETCH[priority] * ticks alone

Rows belong to the samples that are due first; the latest due one gives up its row, between two steps, to
one that is due earlier. So a 10-step job (due in 40 ticks) does not stand behind 1000-step jobs (due in
4000), and since a job's own due date does not move while those of newcomers do, nobody waits for ever:
jobs of k steps overtake one of n steps only if they come within STRETCH * (n - k) ticks after it. This is
earliest due date first with due dates in proportion to the work; it keeps the largest slowdown small.
"""

from __future__ import annotations

import math

from service.engine.jobs import DenoiseJob, Priority

STRETCH = {Priority.HIGH: 1, Priority.NORMAL: 4, Priority.LOW: 16}


def due_tick(job: DenoiseJob, tick: int, capacity: int) -> int:
    """When a job that arrives at `tick` in a lane of `capacity` rows should be done."""
    return tick + STRETCH[job.priority] * ticks_alone(job, capacity)


def ticks_alone(job: DenoiseJob, capacity: int) -> int:
    """How many steps of the whole batch it takes to do nothing but this job."""
    return len(job.table) * math.ceil(len(job) / capacity)
