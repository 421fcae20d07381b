"""Step-level batching: samples of different requests share every call of the network.

`AsyncEngine` owns the thread, `EngineCore` decides what runs next, `DenoisingBatch` holds the rows,
a `Runner` runs the network.
"""
