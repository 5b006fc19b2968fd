"""Rigid registration of the FLAIR to the T1w.

Mattes mutual information (Mattes et al., IEEE TMI 2003), which does not ask how two contrasts relate, over the brain
and a rim around it, so that jaw, neck and fat shift have no say. Coarse to fine, from several starts, by SimpleITK.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..volume import Volume, to_sitk
from .threads import one_thread

if TYPE_CHECKING:
    import SimpleITK

log = logging.getLogger(__name__)

#: Voxel size (mm) at the finest level; optima of a smooth metric are found to a tenth of it.
_SPACING = 2.0
#: Shrink factor, smoothing (mm) and share of the voxels sampled, coarse to fine.
_LEVELS = ((4, 4.0, 1.0), (2, 2.0, 0.5), (1, 0.0, 0.1))
#: The rim around the brain that takes part, mm: it holds the brain's outline.
_RIM = 6.0
#: Mutual information must grow by this share to move the FLAIR: aligned pairs are not blurred for nothing.
_GAIN = 0.005
#: Displacements (mm) beyond which a person should look.
_SUSPICIOUS = 40.0
_SEED = 20251112


@dataclass(frozen=True)
class Registration:
    """What registration found.

    Attributes:
        motion: (4, 4), RAS mm: where a point of the FLAIR belongs in the T1w's world.
        note: what happened, for the log.
        warning: a sentence for the user, or None.
        displacement: mean over the brain of how far a point moves, mm.
        before, after: mutual information where the images lay, and where they were put.
    """

    motion: np.ndarray
    note: str
    warning: str | None = None
    displacement: float = 0.0
    before: float = float("nan")
    after: float = float("nan")


@one_thread()
def register_rigid(
    t1w: Volume,
    flair: Volume,
    brain: Volume,
    tick: Callable[[float], None] = lambda fraction: None,
    *,
    name: str = "FLAIR",
    anywhere: bool = True,
) -> Registration:
    """Find the rigid motion that takes ``flair`` onto ``t1w``; keep the given position unless another is better.

    Deterministic: fixed seed, one thread.

    Args:
        t1w: fixed image.
        flair: moving image.
        brain: >= 0.5 inside, on any grid in the T1w's space.
        tick: called with the share done, 0 to 1; may raise to cancel.
        name: what the moving image is, for sentences.
        anywhere: begin from the centres of both images, too; they say nothing where one is a slab.
    """
    import SimpleITK
    from scipy.ndimage import binary_dilation

    fixed = t1w.resampled_to(t1w.grid.isotropic(_SPACING))
    moving = flair.resampled_to(flair.grid.isotropic(_SPACING))
    inside = brain.resampled_to(fixed).array >= 0.5
    if not inside.any():
        inside = np.ones(fixed.shape, bool)
    rim = binary_dilation(inside, iterations=round(_RIM / _SPACING))
    target, mover, around = (to_sitk(v) for v in (_clipped(fixed, inside), _clipped(moving), fixed.with_array(rim)))
    brain_points = fixed.grid.to_world(np.argwhere(inside)[:: max(1, np.count_nonzero(inside) // 5000)])
    centre = brain_points.mean(0)

    matcher = _Matcher(target, mover, around, centre=centre * (-1, -1, 1), tick=tick)
    as_given = matcher.transform(np.zeros(3))
    # Starts: as given; centres of the boxes; centres of mass. A start that is no other is not tried.
    shifts = [np.zeros(3)]
    for kind in (
        (
            SimpleITK.CenteredTransformInitializerFilter.GEOMETRY,
            SimpleITK.CenteredTransformInitializerFilter.MOMENTS,
        )
        if anywhere
        else ()
    ):
        initial = SimpleITK.CenteredTransformInitializer(target, mover, SimpleITK.VersorRigid3DTransform(), kind)
        shift = np.array(SimpleITK.VersorRigid3DTransform(initial).GetTranslation())
        if min(np.linalg.norm(shift - other) for other in shifts) > 5.0:
            shifts.append(shift)

    coarse = [matcher.match(matcher.transform(shift), 0, 0.3 * i / len(shifts)) for i, shift in enumerate(shifts)]
    found = min(coarse, key=lambda transform: matcher.metric(transform, 1))
    for level in range(1, len(_LEVELS)):
        found = matcher.match(found, level, 0.1 + 0.3 * level)

    before, after = matcher.metric(as_given), matcher.metric(found)
    motion = _motion(found)
    moved = brain_points @ motion[:3, :3].T + motion[:3, 3] - brain_points
    displacement = float(np.linalg.norm(moved, axis=1).mean())
    angle = float(np.degrees(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1))))
    log.debug("Mutual information %.4f before, %.4f after; %.2f mm, %.2f deg", -before, -after, displacement, angle)
    # Negative metrics: a gain makes them smaller.
    if not after < before - _GAIN * abs(before):
        note = "in place already: no better position than the given one"
        return Registration(np.eye(4), note, None, 0.0, -before, -before)
    note = f"{name} moved by {displacement:.1f} mm in the brain, turned by {angle:.1f} degrees"
    warning = None
    if displacement > _SUSPICIOUS:
        warning = f"Registration moved the {name} by {displacement:.0f} mm; check that it lies on the T1w."
    return Registration(motion, note, warning, displacement, -before, -after)


class _Matcher:
    """Mutual information of one pair of images, and its optimisation level by level."""

    def __init__(
        self,
        fixed: SimpleITK.Image,
        moving: SimpleITK.Image,
        mask: SimpleITK.Image,
        centre: np.ndarray,
        tick: Callable[[float], None],
    ) -> None:
        self._fixed, self._moving, self._mask = fixed, moving, mask
        self._centre = centre
        self._tick = tick

    def transform(self, shift: np.ndarray) -> SimpleITK.Euler3DTransform:
        """A translation (LPS mm), as a rigid transform about the centre of the brain."""
        import SimpleITK

        return SimpleITK.Euler3DTransform(self._centre.tolist(), 0.0, 0.0, 0.0, np.asarray(shift, float).tolist())

    def metric(self, transform: SimpleITK.Transform, level: int = -1) -> float:
        """Negative mutual information over all voxels of a level: the smaller, the better."""
        method = self._method(level, everything=True)
        method.SetInitialTransform(transform, inPlace=False)
        try:
            return float(method.MetricEvaluate(*self._images(level)))
        except RuntimeError:  # ITK: hardly any point of the one lies in the other
            return float("inf")

    def match(self, start: SimpleITK.Euler3DTransform, level: int, done: float) -> SimpleITK.Euler3DTransform:
        """Improve ``start`` at one level."""
        import SimpleITK

        method = self._method(level)
        # Powell's line searches go on where gradient steps stop early: rotations of a nearly round brain change the
        # metric far less than shifts do. In tests with known motions it was ten times as accurate, in equal time.
        method.SetOptimizerAsPowell(numberOfIterations=30, stepLength=1.0, stepTolerance=0.01, valueTolerance=1e-5)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(SimpleITK.Euler3DTransform(start), inPlace=True)
        raised: list[BaseException] = []

        def on_iteration() -> None:
            try:
                self._tick(done)
            except BaseException as error:
                # An exception must not pass through ITK's C++; stop there, raise it here.
                raised.append(error)
                method.StopRegistration()

        method.AddCommand(SimpleITK.sitkIterationEvent, on_iteration)
        try:
            result = method.Execute(*self._images(level))
        except RuntimeError as error:
            if raised:
                raise raised[0] from None
            log.debug("Registration stopped at level %d: %s", level, error)
            return start
        if raised:
            raise raised[0]
        log.debug("Level %d: %d iterations, %.4f", level, method.GetOptimizerIteration(), method.GetMetricValue())
        return SimpleITK.Euler3DTransform(result)

    def _method(self, level: int, everything: bool = False) -> SimpleITK.ImageRegistrationMethod:
        import SimpleITK

        method = SimpleITK.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
        method.SetMetricFixedMask(self._mask)
        method.SetInterpolator(SimpleITK.sitkLinear)
        # ITK jitters regular samples within their voxels, so that coinciding lattices do not shape the metric.
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(1.0 if everything else _LEVELS[level][2], _SEED)
        return method

    def _images(self, level: int) -> tuple[SimpleITK.Image, SimpleITK.Image]:
        import SimpleITK

        shrink, sigma, _ = _LEVELS[level]
        pair = []
        for image in (self._fixed, self._moving):
            smooth = SimpleITK.SmoothingRecursiveGaussian(image, sigma) if sigma else image
            pair.append(SimpleITK.Shrink(smooth, [shrink] * 3) if shrink > 1 else smooth)
        return pair[0], pair[1]


def _clipped(volume: Volume, inside: np.ndarray | None = None) -> Volume:
    """Cap the brightest voxels (fat, vessels), which would take most of the histogram's bins for themselves."""
    values = volume.array[inside] if inside is not None else volume.array[volume.array > volume.array.mean()]
    low, high = np.percentile(values, (0.1, 99.5))
    return volume.with_array(np.clip(volume.array, min(low, volume.array.min()), high))


def _motion(transform: SimpleITK.Euler3DTransform) -> np.ndarray:
    """ITK takes fixed to moving points in LPS; here moving to fixed in RAS is wanted."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    centre = np.array(transform.GetCenter())
    matrix[:3, 3] = centre + transform.GetTranslation() - matrix[:3, :3] @ centre
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ np.linalg.inv(matrix) @ flip
