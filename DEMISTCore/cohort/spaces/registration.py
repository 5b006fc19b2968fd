"""A brain brought to a template: rigid, affine, then deformed, by SimpleITK.

Rigid and affine: Mattes mutual information (Mattes et al., IEEE TMI 2003). Deformation: diffeomorphic demons
(Vercauteren et al., NeuroImage 45:S61, 2009) on images of one contrast, coarse to fine: every step is the exponential
of a smooth velocity field, so that nothing folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...preprocess.registration import register_rigid
from ...preprocess.threads import one_thread
from ...volume import Grid, Volume, from_sitk, to_sitk

if TYPE_CHECKING:
    import SimpleITK

    from .templates import Template

#: Voxel size (mm) of the registration, and of the fields that are kept; a coarser template's own is enough.
_SPACING, _KEPT = 2.0, 3.0
#: Affine: shrink factor and share of the voxels sampled of each level. Deformation: shrink factor and iterations.
_AFFINE_LEVELS = ((2, 0.5), (1, 0.2))
_LEVELS = ((4, 60), (2, 40), (1, 20))
#: Fewer voxels along an axis are no level; fewer in all are looked at all.
_LEAST, _ENOUGH = 16, 50_000
#: Smoothness of the deformation, voxels of each level.
_SIGMA = 1.6
_SEED = 20251112
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Below these a person should look (overlap: Dice of the brains; correlation: of the images in the template's brain).
LEAST_OVERLAP, LEAST_CORRELATION = 0.92, 0.6


@dataclass(frozen=True, eq=False)
class Match:
    """What brings a brain to a template.

    Attributes:
        affine: takes points of the template to points of the brain, after ``field``.
        field: displacements (LPS mm) of the template's points, a vector image in the template's space.
        inverse_field: displacements of the deformed points that undo it, in the template's space.
        overlap: Dice of the two brains in the template's space.
        correlation: of the two images inside the template's brain.
        smallest: least determinant of the deformation's Jacobian in the brain; above 0: nothing folds.
    """

    affine: SimpleITK.AffineTransform
    field: SimpleITK.Image
    inverse_field: SimpleITK.Image
    overlap: float
    correlation: float
    smallest: float

    def forward(self) -> SimpleITK.Transform:
        """From points of the template to points of the brain: what images of the brain are resampled with."""
        return _composite(self.affine, self.field)

    def backward(self) -> SimpleITK.Transform:
        """From points of the brain to points of the template."""
        import SimpleITK

        back = SimpleITK.CompositeTransform(3)
        back.AddTransform(_displacement(self.inverse_field))
        back.AddTransform(self.affine.GetInverse())
        return back

    @property
    def warnings(self) -> list[str]:
        """Sentences for people."""
        if self.overlap >= LEAST_OVERLAP and self.correlation >= LEAST_CORRELATION:
            return []
        return [
            f"The brain may not lie on the template (overlap {self.overlap:.2f}, correlation "
            f"{self.correlation:.2f}); look at the picture."
        ]


@one_thread()
def match(brain: Volume, mask: Volume, template: Template) -> Match:
    """Find what brings ``brain`` to ``template``. Same input, same result.

    Args:
        brain: T1w without the skull, 0 outside, bias removed; any grid.
        mask: > 0 in the brain, on the same grid.
        template: where to.
    """
    import SimpleITK

    spacing = max(_SPACING, min(template.image.spacing))
    grid = template.image.grid.isotropic(spacing)
    fixed_brain = template.image.resampled_to(grid)
    fixed_mask = template.mask.resampled_to(grid)
    moving_grid = brain.grid.isotropic(spacing)
    moving, moving_mask = (to_sitk(volume.resampled_to(moving_grid)) for volume in (brain, _binary(mask)))
    fixed = to_sitk(fixed_brain)
    inside = fixed_mask.array >= 0.5
    affine = _affine(template, brain, fixed, moving)
    near = SimpleITK.Resample(moving, fixed, affine, SimpleITK.sitkLinear, 0.0)
    near = SimpleITK.HistogramMatching(near, fixed, 256, 16, True)
    field = _deformation(fixed, near)
    kept = _kept(field, template.image.grid, spacing)
    inverse = SimpleITK.InvertDisplacementField(
        kept, maximumNumberOfIterations=50, meanErrorToleranceThreshold=0.001, maxErrorToleranceThreshold=0.1
    )
    inverse = SimpleITK.Cast(inverse, SimpleITK.sitkVectorFloat64)
    way = _composite(affine, kept)
    there = from_sitk(SimpleITK.Resample(moving_mask, fixed, way, SimpleITK.sitkLinear, 0.0)).resampled_to(grid)
    image = from_sitk(SimpleITK.Resample(moving, fixed, way, SimpleITK.sitkLinear, 0.0)).resampled_to(grid)
    seen = there.array >= 0.5
    overlap = 2 * float((seen & inside).sum()) / max(float(seen.sum() + inside.sum()), 1.0)
    both = seen & inside
    alike = both.sum() > 2 and image.array[both].std() > 0
    correlation = float(np.corrcoef(image.array[both], fixed_brain.array[both])[0, 1]) if alike else 0.0
    jacobian = from_sitk(SimpleITK.DisplacementFieldJacobianDeterminant(kept, True)).resampled_to(grid)
    return Match(affine, kept, inverse, overlap, correlation, float(jacobian.array[inside].min()))


def _affine(template: Template, brain: Volume, fixed: SimpleITK.Image, moving: SimpleITK.Image) -> Any:
    """Rigid as the FLAIR is brought to the T1w, then stretched and sheared."""
    import SimpleITK

    found = register_rigid(template.image, brain, template.mask, name="T1w")
    back = _FLIP @ np.linalg.inv(found.motion) @ _FLIP
    centre = np.array(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    affine = SimpleITK.AffineTransform(3)
    affine.SetCenter(centre.tolist())
    affine.SetMatrix(back[:3, :3].ravel().tolist())
    affine.SetTranslation((back[:3, :3] @ centre + back[:3, 3] - centre).tolist())
    for shrink, share in _AFFINE_LEVELS:
        if shrink == 1 or _has(fixed, shrink):
            affine = _optimized(_shrunk(fixed, shrink), _shrunk(moving, shrink), affine, share)
    return affine


def _optimized(fixed: SimpleITK.Image, moving: SimpleITK.Image, start: Any, share: float) -> Any:
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    if fixed.GetNumberOfPixels() * share > _ENOUGH:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(share, _SEED)
    method.SetInterpolator(SimpleITK.sitkLinear)
    # In tests with known motions as accurate as searches along lines, in a tenth of their time.
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200, relaxationFactor=0.7, gradientMagnitudeTolerance=1e-9
    )
    method.SetOptimizerScalesFromPhysicalShift()
    found = SimpleITK.AffineTransform(start)
    method.SetInitialTransform(found, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # hardly any point of the one lies in the other: the start is the best there is
        return start
    return found


def _deformation(fixed: SimpleITK.Image, moving: SimpleITK.Image) -> SimpleITK.Image:
    """Displacements (LPS mm) on the grid of ``fixed``."""
    import SimpleITK

    field = None
    for shrink, iterations in [level for level in _LEVELS if level[0] == 1 or _has(fixed, level[0])]:
        pair = [_shrunk(image, shrink) for image in (fixed, moving)]
        if field is None:
            field = SimpleITK.Image(pair[0].GetSize(), SimpleITK.sitkVectorFloat64, 3)
            field.CopyInformation(pair[0])
        else:
            field = SimpleITK.Resample(field, pair[0], SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0)
            field = SimpleITK.Cast(field, SimpleITK.sitkVectorFloat64)
        demons = SimpleITK.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(_SIGMA)
        field = demons.Execute(*pair, field)
    return field


def _shrunk(image: SimpleITK.Image, factor: int) -> SimpleITK.Image:
    import SimpleITK

    if factor == 1:
        return image
    sigma = 0.5 * factor * image.GetSpacing()[0]
    return SimpleITK.Shrink(SimpleITK.SmoothingRecursiveGaussian(image, sigma), [factor] * 3)


def _has(image: SimpleITK.Image, shrink: int) -> bool:
    """Whether an image has voxels enough for a level."""
    return min(image.GetSize()) // shrink >= _LEAST


def _kept(field: SimpleITK.Image, grid: Grid, spacing: float) -> SimpleITK.Image:
    """The field at :data:`_KEPT` mm: it is smooth, and a thousand people's are kept."""
    import SimpleITK

    coarse = grid.isotropic(max(_KEPT, spacing))
    reference = to_sitk(Volume(np.zeros(coarse.shape, np.float32), coarse.affine))
    smooth = SimpleITK.SmoothingRecursiveGaussian(field, 0.5 * spacing)
    kept = SimpleITK.Resample(smooth, reference, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0)
    return SimpleITK.Cast(kept, SimpleITK.sitkVectorFloat64)


def _composite(affine: SimpleITK.AffineTransform, field: SimpleITK.Image) -> SimpleITK.CompositeTransform:
    """Field first, then affine: ITK applies what was added last first."""
    import SimpleITK

    both = SimpleITK.CompositeTransform(3)
    both.AddTransform(affine)
    both.AddTransform(_displacement(field))
    return both


def _displacement(field: SimpleITK.Image) -> SimpleITK.DisplacementFieldTransform:
    import SimpleITK

    return SimpleITK.DisplacementFieldTransform(SimpleITK.Image(field))  # the transform takes the image away


def _binary(mask: Volume) -> Volume:
    return mask.with_array((mask.array > 0).astype(np.float32))
