"""Physical simulator of T1w + FLAIR + PSR subjects: the embedded source of truth.

    anatomy -> deform -> lesions -> tissue maps (PSR, R2, PD) -> signal equations -> scanner artefacts -> BIDS

One file per step; :mod:`.subject` strings them together and :mod:`.bids` writes the result.
"""
