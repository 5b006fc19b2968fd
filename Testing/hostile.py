"""How many hostile cases are drawn, and bytes that something has gone wrong with."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("DEMIST_FUZZ_EXAMPLES", "60"))
#: 10 s a case.
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=10_000,
    derandomize="DEMIST_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)


@st.composite
def damaged(draw, content):
    """Bytes with some of them changed, cut or doubled."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.integers(0, 3))
        if how == 0:
            del data[at:]
        elif how == 1:
            data[at : at + 1] = draw(st.binary(max_size=9))
        elif how == 2 and len(data) < 1 << 20:
            data[at:at] = data[: at + 1]
        elif data:
            data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)
