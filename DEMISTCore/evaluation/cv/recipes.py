"""What is compared: each method as the stages that train it, their shares of its budget, and the rows of the tables.

Budgets are equal over methods. One that stands on autoencoders pays for them out of its own budget (they are trained
once a fold, and every method that uses them is charged), unless ``--foundation`` declares them external: then all of
the budget goes to what is trained here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import InputError

#: What kind of method it is; the claim is made against the second and third.
OURS, GAN, DIFFUSION, REGRESSION, FITTED = "DEMIST", "GAN", "diffusion", "regression", "fitted"

DEMIST_MEAN, DEMIST_SAMPLE = "DEMIST (mean)", "DEMIST (sample)"
LINEAR, RATIO = "linear model", "T1w/FLAIR ratio"


@dataclass(frozen=True)
class Recipe:
    """One method.

    Attributes:
        name: on the command line.
        rows: names of its maps in the tables.
        kind: one of :data:`OURS` and so on.
        shares: of the budget, by stage, in the order of training; they add up to 1. Empty: nothing is trained.
        external: the same where autoencoders and backbone come from elsewhere; None: as ``shares``.
        published: the same where a published backbone does; None: as ``shares``.
        source: where the method is from.
    """

    name: str
    rows: tuple[str, ...]
    kind: str
    shares: Mapping[str, float] = field(default_factory=dict)
    external: Mapping[str, float] | None = None
    source: str = ""
    published: Mapping[str, float] | None = None

    def stages(self, foundation: str | None = None, backbone: str | None = None) -> Mapping[str, float]:
        """Shares of the budget by stage, with what comes from elsewhere."""
        if foundation is not None:
            return self.shares if self.external is None else self.external
        return self.published if backbone is not None and self.published is not None else self.shares


#: The autoencoders' share of the budget, alike for all that stand on them: they are trained once.
_CODED = 0.25

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "demist",
            (DEMIST_MEAN, DEMIST_SAMPLE),
            OURS,
            {"autoencoder": _CODED, "backbone": 0.15, "mean": 0.4, "demist": 0.2},
            {"mean": 0.65, "demist": 0.35},
            "Wang et al., arXiv 2511.12396",
            {"autoencoder": _CODED, "mean": 0.45, "demist": 0.3},
        ),
        Recipe(
            "vae",
            ("VAE (latent regression)",),
            REGRESSION,
            {"autoencoder": _CODED, "vae": 1 - _CODED},
            {"vae": 1.0},
            "Kingma and Welling 2014; Rombach et al. 2022",
        ),
        Recipe("pix2pix", ("pix2pix",), GAN, {"pix2pix": 1.0}, None, "Isola et al. 2017, in 3-D"),
        Recipe("unet", ("U-Net regression",), REGRESSION, {"regression": 1.0}, None, "Cicek et al. 2016"),
        Recipe(
            "ldm",
            ("conditional LDM",),
            DIFFUSION,
            {"autoencoder": _CODED, "ldm": 1 - _CODED},
            {"ldm": 1.0},
            "Rombach et al. 2022",
        ),
        Recipe("cwdm", ("cWDM",), DIFFUSION, {"cwdm": 1.0}, None, "Friedrich et al., arXiv 2411.17203"),
        Recipe("linear", (LINEAR,), FITTED, source="least squares on ten local features"),
        Recipe("ratio", (RATIO,), FITTED, source="Glasser and Van Essen 2011, with FLAIR"),
    )
}


def choose(names: Sequence[str]) -> list[Recipe]:
    """The recipes of these names, in the order given.

    Raises:
        InputError: a name is unknown (the nearest is named) or given twice, or there is none.
    """
    if not names:
        raise InputError(f"Give --methods at least one of {', '.join(RECIPES)}.")
    for name in names:
        if name not in RECIPES:
            near = difflib.get_close_matches(name, RECIPES, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(RECIPES)}."
            raise InputError(f"There is no method {name!r}; {hint}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"--methods names {twice} twice; name it once.")
    return [RECIPES[name] for name in names]


def without_mean(recipe: Recipe) -> Recipe:
    """DEMIST for a model that has no mean network: what it would take goes to the backbone and to the streams."""
    if recipe.name != "demist":
        return recipe
    return Recipe(
        recipe.name,
        recipe.rows,
        recipe.kind,
        {"autoencoder": _CODED, "backbone": 0.35, "demist": 0.4},
        {"demist": 1.0},
        recipe.source,
        {"autoencoder": _CODED, "demist": 1 - _CODED},
    )


def kinds(recipes: Sequence[Recipe]) -> dict[str, str]:
    """Kind of each row of the tables."""
    return {row: recipe.kind for recipe in recipes for row in recipe.rows}
