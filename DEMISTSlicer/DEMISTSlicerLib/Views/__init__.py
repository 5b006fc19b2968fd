"""Slice views and layouts: what is shown in them, and the user's own settings back afterwards."""
