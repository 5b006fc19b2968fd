"""Names of the regions, and everything about them that may be chosen."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..schema import finite, shown

#: Ways to find tissue and lesions.
METHODS = ("network", "hmrf")
#: The tissue network that comes with the package.
DEFAULT_NETWORK = "demist-regions"

#: Key to human name, in the order of tables. Regions overlap: a black hole is a lesion, and white matter holds both.
REGIONS: dict[str, str] = {
    "lesion": "Lesions",
    "black_hole": "T1 black holes",
    "nawm": "NAWM",
    "nawm_proximal": "Proximal NAWM",
    "nawm_middle": "NAWM between",
    "nawm_distal": "Distal NAWM",
    "grey_matter": "Grey matter",
    "white_matter": "White matter (with lesions)",
    "csf": "CSF",
}


@dataclass(frozen=True)
class RegionSettings:
    """How lesions and NAWM are told apart; lengths in mm, between voxel centres, volumes in mL.

    Proximal and distal NAWM are distinguished as in Figure 3 of Wang et al., arXiv 2511.12396. All numbers are our
    choice: studies differ in them. Whoever compares with one should set what it used.

    Attributes:
        lesion_gap_mm: white matter must be farther than this from lesions to be NAWM. A lesion's border voxels are
            partly lesion, and outlines drawn on a FLAIR of thicker slices are no better than a voxel or two.
        proximal_mm: proximal NAWM is farther than the first and not farther than the second from the nearest lesion.
        distal_mm: distal NAWM is farther than this from every lesion. What lies between is "NAWM between".
        min_lesion_ml: smaller lesions are left out (of drawn masks; 0 keeps all). They are no NAWM either.
        min_suggested_ml: smaller suggestions are noise; the larger of this and ``min_lesion_ml`` holds for them.
        seed_sd: a suggested lesion has a core this many standard deviations of white matter's FLAIR brightness above
            its local mean.
        contrast: and it is brighter than its surroundings by this share of their brightness (fluid is 0): white matter
            itself varies by a tenth.
        grow_sd: a lesion reaches out from its core to where the FLAIR falls below this many standard deviations.
        grey_percentile: where grey matter is near, a core must also be brighter than this percentage of grey matter.
        cap_mm: within this distance of the ventricles a core needs twice the contrast, falling to once at twice the
            distance: periventricular caps and bands are moderately bright without being lesions. 0: no such rule.
        depth_mm: NAWM must be farther than this, and than one voxel of the finest axis, from grey matter and CSF:
            border voxels are mixtures, and a mean would hang on where exactly the border was found. 0: all of it. Grey
            matter is taken whole: cortex has hardly a voxel off its borders, and what white matter adds to its mean on
            one side fluid takes away on the other.
        method: how tissue, and lesions where none are given, are found: "network", trained on simulated images
            (:mod:`.network`), or "hmrf", Gaussians of brightness in a Markov random field (:mod:`.tissue`) and rules on
            the FLAIR's brightness (:mod:`.suggest`); ``seed_sd`` to ``cap_mm`` are for the latter.
        network: the network's bundle: name, folder or Hugging Face id.

    Raises:
        InputError: a number that makes no sense.
    """

    lesion_gap_mm: float = 2.0
    proximal_mm: tuple[float, float] = (2.0, 6.0)
    distal_mm: float = 10.0
    min_lesion_ml: float = 0.0
    min_suggested_ml: float = 0.01
    seed_sd: float = 4.0
    contrast: float = 0.2
    grow_sd: float = 2.0
    grey_percentile: float = 97.0
    cap_mm: float = 3.0
    depth_mm: float = 2.0
    method: str = "network"
    network: str = DEFAULT_NETWORK

    def __post_init__(self) -> None:
        try:
            low, high = (float(value) for value in self.proximal_mm)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError("Proximal NAWM needs two distances in mm, such as 2 and 6.") from error
        object.__setattr__(self, "proximal_mm", (low, high))
        if self.method not in METHODS:
            raise InputError(f"There is no method {self.method!r} to find tissue; choose {' or '.join(METHODS)}.")
        for name, value in vars(self).items():
            if name in ("method", "network"):
                continue
            for number in value if isinstance(value, tuple) else (value,):
                if not finite(number) or number < 0:
                    raise InputError(f"The setting {name} must be a finite number of 0 or more, not {shown(value)}.")
        if not self.lesion_gap_mm <= low < high <= self.distal_mm:
            raise InputError(
                f"Distances from lesions must rise: gap {self.lesion_gap_mm:g} <= proximal from {low:g} < to {high:g} "
                f"<= distal {self.distal_mm:g} mm; correct the one that is out of order."
            )
        if self.grey_percentile > 100:
            raise InputError(f"The setting grey_percentile is a percentage, not {self.grey_percentile:g}.")
        if self.grow_sd > self.seed_sd:
            raise InputError(
                f"A lesion's rim (grow_sd {self.grow_sd:g}) cannot be brighter than its core (seed_sd "
                f"{self.seed_sd:g}); lower grow_sd."
            )
