"""How many rows a call may have: fewer after one that did not fit into memory, more again later."""

from __future__ import annotations

import logging

from service.engine.isolation import BatchFailures
from service.engine.observer import EngineObserver

log = logging.getLogger(__name__)

PATIENCE = 128
"""Calls that must fit before larger ones are tried; doubled by every shortage."""
MAX_PATIENCE = 2**16


class MemoryLimit:
    """Halved by a call that ran out of memory, doubled after `PATIENCE` calls that fitted.

    Failures without a call that fits between them are one shortage: one second without any memory, which
    fails hundreds of calls, must not keep batches small for hours. Once full batches have fitted for as
    long as patience had become, it is `PATIENCE` again.
    """

    def __init__(self, rows: int, observer: EngineObserver) -> None:
        self.rows = rows
        self._most = rows
        self._observer = observer
        self._patience = PATIENCE
        self._num_fitted = 0
        self._is_short = False

    def observe(self, failures: BatchFailures) -> None:
        """Learn from a batch that was run."""
        if failures.out_of_memory_at is not None:
            self._shrink(failures.out_of_memory_at)
            return
        self._is_short = False
        self._num_fitted += failures.num_calls
        if self._num_fitted >= self._patience:
            self._num_fitted = 0
            if self.rows < self._most:
                self.rows = min(self._most, 2 * self.rows)
                log.info("trying batches of up to %d again", self.rows)
            else:
                self._patience = PATIENCE

    def _shrink(self, too_many: int) -> None:
        self._observer.ran_out_of_memory(too_many)
        self._num_fitted = 0
        if not self._is_short:
            self._is_short = True
            self._patience = min(MAX_PATIENCE, 2 * self._patience)
        self.rows = min(self.rows, max(1, too_many // 2))
        log.warning("out of memory at batch %d; going on with %d", too_many, self.rows)
