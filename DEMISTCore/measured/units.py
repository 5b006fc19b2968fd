"""Is a map in fractions or in percent: its sidecar says so, else its typical value does."""

from __future__ import annotations

from ..errors import InputError

#: A typical value (median over the brain) above this is no fraction; up to the second it is a percentage.
FRACTION_LIMIT, PERCENT_LIMIT = 0.5, 60.0
#: Typical values of a brain's PSR, fraction: white matter has about 0.12, cortex 0.06, CSF 0.
TYPICAL = (0.01, 0.3)
FRACTION, PERCENT = "fraction", "percent"
_WORDS = {
    FRACTION: ("fraction", "fractions", "1", "unitless", "dimensionless", "ratio", "none", "arbitrary", "n/a", ""),
    PERCENT: ("percent", "%", "percentage", "p.u.", "pu"),
}
#: Words of a sidecar that say "no unit", which programs write of percentages as well.
_VAGUE = ("1", "unitless", "dimensionless", "ratio", "none", "arbitrary", "n/a", "")


def find_units(typical: float, told: object, label: str) -> tuple[str, str]:
    """Units of a PSR map, :data:`FRACTION` or :data:`PERCENT`, and who says so ("sidecar" or "typical value").

    Args:
        typical: median of the values above 0, as stored; a maximum would be an outlier's word.
        told: the sidecar's ``Units`` (BIDS), None without any.
        label: names the map in errors.

    Raises:
        InputError: the sidecar's word and the values contradict each other, it is no unit of PSR, or the values are
            those of no PSR map.

    >>> find_units(12.0, None, "psr.nii.gz")
    ('percent', 'typical value')
    """
    word = str(told).strip().lower() if isinstance(told, (str, int, float)) else None
    said = None if word is None or word in _VAGUE else next((u for u, words in _WORDS.items() if word in words), word)
    if said not in (None, FRACTION, PERCENT):
        raise InputError(f'{label}: its sidecar says Units "{told}", and PSR has "fraction" or "percent"; fix it.')
    seems = FRACTION if typical <= FRACTION_LIMIT else PERCENT
    if typical <= PERCENT_LIMIT and said not in (None, seems):
        usual = "0.1" if said == FRACTION else "10"
        raise InputError(
            f'{label}: its sidecar says Units "{told}", but its typical value is {typical:.3g}, where such a map has '
            f"about {usual}; fix the sidecar or the map."
        )
    units = said or seems
    value = typical / 100 if units == PERCENT else typical
    if typical > PERCENT_LIMIT or not TYPICAL[0] <= value <= TYPICAL[1]:
        raise InputError(
            f"{label} is no PSR map: its typical value is {typical:.3g}, where a fraction is about 0.1 and a "
            "percentage about 10; check that the right file was given."
        )
    return units, "sidecar" if said else "typical value"
