"""The Python environment that the worker runs in: where it is, and how it is made."""
