"""Use cases: what an answer consists of. Knows the engine and the cache, neither HTTP nor threads."""
