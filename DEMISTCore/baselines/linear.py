"""Baselines of a few coefficients: PSR as a linear function of ten local features, and as a scaled T1w/FLAIR ratio.

Both are fitted by least squares in seconds on scans whose PSR is known, and make a map in a second. Whatever they do
better than a network is a defect of the network. The ratio is the usual myelin proxy of clinical scans (Glasser and
Van Essen, J Neurosci 31:11597, 2011, with T2w; with FLAIR in multiple sclerosis), brought to PSR by one factor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import atomic_path

#: Names of what :func:`features` gives, in its order: t, f are T1w and FLAIR, G Gaussians of 1 and 2.5 voxels.
FEATURES = ("t", "f", "G1 t", "G1 f", "G2.5 t", "G2.5 f", "t^2", "f^2", "t f", "1")
VOXELS = 20_000  # drawn from each scan
#: FLAIR intensities are not taken below this (0.5 is the tissue's median): fluid is suppressed and divides by nothing.
_LEAST_FLAIR = 0.1
_LARGEST_RATIO = 3.0
_FORMAT = 1


def features(condition: np.ndarray) -> np.ndarray:
    """Ten local features, float32 (10, X, Y, Z), of prepared images (2, X, Y, Z); see :data:`FEATURES`."""
    from scipy.ndimage import gaussian_filter

    t, f = np.asarray(condition, np.float32)
    smooth = [gaussian_filter(image, sigma) for sigma in (1, 2.5) for image in (t, f)]
    return np.stack([t, f, *smooth, t * t, f * f, t * f, np.ones_like(t)])


def ratio(condition: np.ndarray) -> np.ndarray:
    """T1w over FLAIR, float32 (X, Y, Z), of prepared images (2, X, Y, Z), limited to 0 to 3."""
    t, f = np.asarray(condition, np.float32)
    return np.clip(t / np.maximum(f, _LEAST_FLAIR), 0, _LARGEST_RATIO)


@dataclass(eq=False)
class LinearModel:
    """Fitted baselines.

    Attributes:
        weights: (10,), one for each of :data:`FEATURES`.
        ratio_scale: PSR of a T1w/FLAIR ratio of 1.
        spacing: voxel size (mm) of the images it was fitted on: Gaussians are in voxels.
        scans: names of these scans.
        source: the data set's name.
    """

    weights: np.ndarray
    ratio_scale: float
    spacing: float
    scans: tuple[str, ...] = ()
    source: str = ""
    key: str = field(default="", repr=False)

    def predict(self, condition: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """PSR (X, Y, Z), float32, 0 or more, 0 outside ``mask``, from prepared images (2, X, Y, Z)."""
        psr = np.maximum(np.tensordot(self.weights.astype(np.float32), features(condition), 1), 0)
        return np.where(np.asarray(mask) > 0, psr, 0).astype(np.float32)

    def predict_ratio(self, condition: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The scaled T1w/FLAIR ratio, as :meth:`predict`."""
        psr = np.float32(self.ratio_scale) * ratio(condition)
        return np.where(np.asarray(mask) > 0, psr, 0).astype(np.float32)

    def save(self, path: str | Path) -> None:
        """Write to ``path`` (.npz), whole or not at all."""
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                format=_FORMAT,
                weights=self.weights,
                ratio_scale=self.ratio_scale,
                spacing=self.spacing,
                scans=np.array(self.scans, dtype=str),
                source=self.source,
                key=self.key,
            )

    @classmethod
    def load(cls, path: str | Path) -> LinearModel:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: there is no such file, or it holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                model = cls(
                    np.asarray(stored["weights"], np.float64),
                    float(stored["ratio_scale"]),
                    float(stored["spacing"]),
                    tuple(stored["scans"].tolist()),
                    str(stored["source"]),
                    str(stored["key"]),
                )
                good = int(stored["format"]) == _FORMAT and model.weights.shape == (len(FEATURES),)
        except OSError as error:
            raise InputError(f"The linear model {path} cannot be read: {error.strerror or error}.") from error
        except Exception:  # numpy raises whatever a damaged archive leads it to
            good = False
        if not good or not np.isfinite([*model.weights, model.ratio_scale, model.spacing]).all():
            raise InputError(
                f"{path} holds no linear model; give the linear.npz that an evaluation with --lookup-from wrote."
            )
        return model


def fit(
    scans: Iterable[tuple[str, np.ndarray, np.ndarray, np.ndarray]], *, spacing: float, source: str = "", key: str = ""
) -> LinearModel:
    """Fit both by least squares on 20,000 voxels drawn from the brain of each scan.

    Args:
        scans: name, prepared images (2, X, Y, Z), true PSR and brain mask (X, Y, Z) of each; taken one at a time.
        spacing, source, key: kept in the model.

    Raises:
        InputError: there is no scan, a mask is empty, or the scans do not determine the coefficients.
    """
    rng, xs, ys, names = np.random.default_rng(0), [], [], []
    for name, condition, psr, mask in scans:
        inside = np.flatnonzero(np.asarray(mask).ravel() > 0)
        if not inside.size:
            raise InputError(f"{name} has an empty brain mask; fix it or leave the scan out.")
        here = rng.choice(inside, min(VOXELS, inside.size), replace=False)
        xs.append(np.concatenate([features(condition), ratio(condition)[None]]).reshape(len(FEATURES) + 1, -1)[:, here])
        ys.append(np.asarray(psr, np.float64).ravel()[here])
        names.append(name)
    if not xs:
        raise InputError("There is no scan to fit the linear model on.")
    x, y = np.concatenate(xs, 1).astype(np.float64), np.concatenate(ys)
    weights, _, rank, _ = np.linalg.lstsq(x[:-1].T, y, rcond=None)
    power = float(x[-1] @ x[-1])
    if rank < len(FEATURES) or not power > 0 or not np.isfinite(weights).all():
        raise InputError(f"The linear model cannot be fitted on {', '.join(names)}: T1w or FLAIR hardly vary there.")
    return LinearModel(weights, float(x[-1] @ y) / power, spacing, tuple(names), source, key)
