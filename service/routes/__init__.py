"""HTTP: each file is one resource. Routes read requests and write responses; they compute nothing."""
