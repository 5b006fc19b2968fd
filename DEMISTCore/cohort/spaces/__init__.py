"""Results in further spaces: the FLAIR's own grid, and templates; with the transforms that lead there and back.

:mod:`.templates` (which brain defines a space), :mod:`.registration` (what brings a brain there), :mod:`.xfm` (files of
transforms), :mod:`.outputs` (what is written).
"""
