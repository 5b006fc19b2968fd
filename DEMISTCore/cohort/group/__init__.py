"""All sessions together: tables, patients against controls, change over time, what stands out, and a report.

:func:`.run.run_group` is the whole of it; :mod:`.people` (who is who), :mod:`.tables` (long and wide), :mod:`.compare`,
:mod:`.change`, :mod:`.outliers`, :mod:`.page`, :mod:`.figure`.
"""
