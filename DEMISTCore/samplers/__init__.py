"""The registry of samplers: every module here that marks a function is one. No torch until one samples.

A sampler is one function with one signature, so that whoever knows the algorithm reads it in a minute (the habit of
k-diffusion's ``sampling.py``):

    sampler(model, z, schedule, steps, *, noise, eta=0.0, start=1.0, callback=None) -> z_0

``model(z_t, t)`` returns the network's prediction (v or epsilon, as the schedule says) for ``t`` of shape (B,);
``noise(shape)`` draws standard normal noise, on the CPU, so that a seed means the same on every device;
``start`` is where on the schedule ``z`` is, see :meth:`DEMISTCore.diffusion.NoiseSchedule.timesteps`;
``callback(step, steps, x0)`` is called after each step with the running estimate of z_0 and may raise to stop.
"""

from __future__ import annotations

import importlib
import pkgutil

from .parts import Sampler, sampler

__all__ = ["SAMPLERS", "Sampler", "sampler"]


def _found() -> dict[str, Sampler]:
    modules = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    things = [thing for module in modules for thing in vars(module).values()]
    return {thing.name: thing for thing in things if isinstance(thing, Sampler)}


#: name -> sampler, in the order of their names
SAMPLERS: dict[str, Sampler] = _found()
