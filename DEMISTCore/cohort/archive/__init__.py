"""A folder of DICOM studies in: which series are T1w and FLAIR of one study, made into images by dcm2niix.

:mod:`.headers` (what there is), :mod:`.series` (what a series is), :mod:`.studies` (pairs, as sessions), :mod:`.people`
(age, sex and dates for the level "group"), :mod:`.convert` (images).
"""
