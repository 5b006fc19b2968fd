"""Competing methods, one file each."""
