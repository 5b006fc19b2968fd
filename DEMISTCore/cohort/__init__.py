"""Whole cohorts: a BIDS data set (or a table of paths) in, a derivative data set with tables and reports out.

``python -m DEMISTCore.cohort BIDS_DIR OUT_DIR {participant,group}``, or ``demist-bids``. One file a job: :mod:`.index`
and :mod:`.table` (which scans there are), :mod:`.sidecars` (their protocol, inherited as BIDS has it), :mod:`.options`
(what may be chosen), :mod:`.keys` (what a result depends on), :mod:`.names` (where it goes), :mod:`.dataset` (the files
of the derivative data set as a whole), :mod:`.records` and :mod:`.status` (what is done, and how it went), :mod:`.work`
(one session, under its lock), :mod:`.stages` (map, regions, report), :mod:`.engine` (all sessions, one after the other)
and :mod:`.cluster` (on several workers, by Dask), :mod:`.page` (reports), :mod:`.group` (tables and comparisons).
"""
