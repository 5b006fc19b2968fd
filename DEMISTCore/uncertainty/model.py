"""The formulas of both spreads, of a voxel and of a region's mean, and how their parameters are fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

#: Gains of the predicted SD lie between these; beyond them the prediction says nothing of the error.
GAIN_LIMITS = (0.02, 50.0)
#: A cell of the gain table trusts its own voxels by n / (n + this), its row of equal mean otherwise.
_SHRINK = 1000.0
#: Degrees of freedom of the t distribution that region errors are fitted with: single wild regions weigh little.
_FREEDOM = 5.0
#: SD of the prior on the logarithms of a, b and c, and on gamma about 1; it decides only what data leave open.
_PRIOR = 2.0


def interpolate(nodes: Sequence[ArrayLike], table: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
    """Linear interpolation in a table over two axes, constant beyond its ends.

    Args:
        nodes: rising positions of rows and of columns; one position means that the axis does not matter.
        table: (rows, columns).
        where: row and column position of each value wanted, (N,) each.

    Returns:
        (N,) values.
    """
    places, shares = [], []
    for given, at in zip(nodes, where):
        axis = np.asarray(given, np.float64)
        place = np.interp(at, axis, np.arange(axis.size))
        lower = np.minimum(place.astype(np.intp), max(axis.size - 2, 0))
        places.append((lower, np.minimum(lower + 1, axis.size - 1)))
        shares.append(place - lower)
    (r0, r1), (c0, c1) = places
    r, c = shares
    return (1 - r) * ((1 - c) * table[r0, c0] + c * table[r0, c1]) + r * ((1 - c) * table[r1, c0] + c * table[r1, c1])


def gain(
    mean_nodes: Sequence[float], sd_nodes: Sequence[float], table: np.ndarray, mean: np.ndarray, sd_local: np.ndarray
) -> np.ndarray:
    """g(mean, sd_local), (N,): what the predicted local SD is multiplied with; linear in mean, log SD and log g."""
    log_sd = np.log(np.maximum(sd_local, sd_nodes[0]))
    return np.exp(interpolate((mean_nodes, np.log(sd_nodes)), np.log(table), (mean, log_sd)))


def fit_gain(
    mean: np.ndarray,
    sd_local: np.ndarray,
    residual: np.ndarray,
    weights: np.ndarray,
    mean_bin: np.ndarray,
    bins: int,
    sd_nodes: Sequence[float],
) -> np.ndarray:
    """The table of g by moments: in each cell, g^2 = sum w residual^2 / sum w sd_local^2, (bins, nodes of SD).

    Args:
        mean, sd_local, residual, weights: (N,) predicted mean, predicted SD, error without the subject's own scale,
            and how much each voxel counts.
        mean_bin: (N,) bin of the mean, 0 to ``bins - 1``.
        bins: number of bins.
        sd_nodes: positions of the columns; a voxel belongs to the nearest one in log SD.
    """
    nodes = np.log(np.asarray(sd_nodes))
    column = np.searchsorted((nodes[1:] + nodes[:-1]) / 2, np.log(np.maximum(sd_local, sd_nodes[0])))
    cell = mean_bin * len(sd_nodes) + column
    size = bins * len(sd_nodes)
    shape = (bins, len(sd_nodes))
    squares = np.bincount(cell, weights * residual**2, size).reshape(shape)
    predicted = np.bincount(cell, weights * sd_local**2, size).reshape(shape)
    count = np.bincount(cell, minlength=size).reshape(shape)
    row = squares.sum(1, keepdims=True) / np.maximum(predicted.sum(1, keepdims=True), 1e-30)
    own = np.where(predicted > 0, squares / np.maximum(predicted, 1e-30), row)
    table = np.sqrt((count * own + _SHRINK * row) / (count + _SHRINK))
    return np.clip(table, *GAIN_LIMITS)


def region_sd(
    parameters: Sequence[float], mean: np.ndarray, variance: np.ndarray, volume_ml: np.ndarray, correlation_ml: float
) -> np.ndarray:
    """Predicted SD of the error of a region's mean, (N,).

    s^2 = (a m)^2 + b^2 v / n_eff^gamma + c^2, n_eff = 1 + V / V_c

    The three parts are the error that the whole brain shares, local errors that average out over volumes of
    correlation V_c (gamma below 1: more slowly than independent ones would, as errors of long range do), and what is
    wrong everywhere.

    Args:
        parameters: a, b, c, gamma.
        mean, variance, volume_ml: (N,) the region's mean m, mean of its voxels' local variance v, volume V.
        correlation_ml: V_c.
    """
    a, b, c, gamma = parameters
    independent = 1 + np.asarray(volume_ml, np.float64) / correlation_ml
    return np.sqrt((a * np.asarray(mean)) ** 2 + b**2 * np.asarray(variance) / independent**gamma + c**2)


def fit_region(
    mean: np.ndarray,
    variance: np.ndarray,
    volume_ml: np.ndarray,
    error: np.ndarray,
    weights: np.ndarray,
    correlation_ml: float,
    scale_sd: float,
) -> tuple[float, float, float, float]:
    """a, b, c and gamma of :func:`region_sd` by maximum likelihood of region errors under a t distribution.

    Args:
        mean, variance, volume_ml, error, weights: (N,) per region; the weights say how much each counts.
        correlation_ml: volume of correlation.
        scale_sd: of the error that the whole brain shares; where a starts.
    """
    from scipy.optimize import minimize

    typical = max(float(np.sqrt(np.average(error**2, weights=weights))), 1e-8)
    start = np.array([math.log(max(scale_sd, 1e-3)), 0.0, math.log(0.1 * typical), 1.0])
    share = weights / weights.sum()
    strength = 1 / (2 * max(len(error), 1))

    def parameters(at: np.ndarray) -> tuple[float, float, float, float]:
        a, b, c = np.exp(at[:3])
        return float(a), float(b), float(c), float(at[3])

    def loss(at: np.ndarray) -> float:
        sd = np.maximum(region_sd(parameters(at), mean, variance, volume_ml, correlation_ml), 1e-9)
        fit = np.log(sd) + (_FREEDOM + 1) / 2 * np.log1p((error / sd) ** 2 / _FREEDOM)
        return float(share @ fit + strength * (((at - start) / _PRIOR) ** 2).sum())

    bounds = [(-14.0, 3.0), (-6.0, 3.0), (-18.0, 0.0), (0.05, 2.0)]
    found = minimize(loss, np.clip(start, *np.array(bounds).T), method="L-BFGS-B", bounds=bounds)
    return parameters(found.x)


def correlation_volume(lags_mm: np.ndarray, correlation: np.ndarray, least_ml: float) -> float:
    """Volume that errors correlate over, mL: the integral of the correlation over space, 4 pi int r^2 rho(r) dr.

    ``lags_mm`` (mm) and ``correlation`` are (n,).

    A mean over a volume V, large against it, has the variance of a voxel divided by V / V_c (Vanmarcke, *Random
    Fields*, 1983: the scale of fluctuation). Cut where the correlation first falls below 0.05: what comes after is the
    sampling error of many shells times a large r^2, and belongs to gamma.

    Args:
        lags_mm: rising, from 0.
        correlation: at these lags.
        least_ml: volume of a voxel, below which it cannot be known.
    """
    from scipy.integrate import trapezoid

    below = np.flatnonzero(correlation < 0.05)
    end = int(below[0]) + 1 if below.size else len(correlation)
    radius, rho = np.asarray(lags_mm[:end]), np.maximum(correlation[:end], 0)
    return max(float(4 * math.pi * trapezoid(radius**2 * rho, radius)) / 1000, least_ml)
