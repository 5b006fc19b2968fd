"""Whole cohorts: a BIDS data set (a table of paths, DICOM studies) in, a derivative data set with reports out.

``python -m DEMISTCore.cohort BIDS_DIR OUT_DIR {participant,group}``, or ``demist-bids``. One file a job: :mod:`.index`,
:mod:`.table` and :mod:`.archive` (which scans there are), :mod:`.sidecars` (their protocol, inherited as BIDS has it),
:mod:`.options` (what may be chosen), :mod:`.keys` (what a result depends on), :mod:`.names` (where it goes),
:mod:`.dataset` (the files of the derivative data set as a whole), :mod:`.records` and :mod:`.status` (what is done, and
how it went), :mod:`.work` (one session, under its lock), :mod:`.stages` (map, regions, report) and :mod:`.spaces`,
:mod:`.engine` (the loop over all sessions), :mod:`.cluster` (by Dask), :mod:`.workers` (of this machine, a queue, or
somebody's), :mod:`.phases` and :mod:`.handoff` (what runs where, and how it gets there), :mod:`.page` (reports),
:mod:`.group` (tables and comparisons).
"""
