"""Runs: what is asked of the child process that computes, how it goes, and what becomes of its answers."""
