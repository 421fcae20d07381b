"""How many rows a call may have: fewer after one that did not fit into memory, more again later."""

from __future__ import annotations

import logging

from service.engine.isolation import BatchFailures
from service.engine.observer import EngineObserver

log = logging.getLogger(__name__)

PATIENCE = 128
"""Calls that must fit before a larger one is tried; doubled by every call that does not fit."""
MAX_PATIENCE = 2**16


class MemoryLimit:
    """Halved by a call that ran out of memory, doubled after `PATIENCE` calls that fitted."""

    def __init__(self, rows: int, observer: EngineObserver) -> None:
        self.rows = rows
        self._most = rows
        self._observer = observer
        self._patience = PATIENCE
        self._num_fitted = 0

    def observe(self, failures: BatchFailures) -> None:
        """Learn from a batch that was run."""
        if failures.out_of_memory_at is not None:
            self._observer.ran_out_of_memory(failures.out_of_memory_at)
            self.rows = min(self.rows, max(1, failures.out_of_memory_at // 2))
            self._num_fitted = 0
            self._patience = min(MAX_PATIENCE, 2 * self._patience)
            log.warning("out of memory at batch %d; going on with %d", failures.out_of_memory_at, self.rows)
        elif self.rows < self._most:
            self._num_fitted += 1
            if self._num_fitted >= self._patience:
                self.rows = min(self._most, 2 * self.rows)
                self._num_fitted = 0
                log.info("trying batches of up to %d again", self.rows)
