"""Training: one loop (:mod:`.loop`) and one file per stage."""
