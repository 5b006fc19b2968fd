"""The Python environment that the worker runs in: where it is, how it is made, and what the panel shows of it."""
