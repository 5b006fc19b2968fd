"""Fixtures that several test files share: a tiny model with random weights, and a small head to run it on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch

    from DEMISTCore.bundle import Bundle
    from DEMISTCore.networks import ModelConfig

# Tests run side by side and on small machines; one thread each is fastest, and the same everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing in the suite may depend on a network.
os.environ["HF_HUB_OFFLINE"] = "1"
#: Files of more than half a minute, dearest first: side by side they start first, so that none is left over at the end.
DEAR = (
    "test_slicer_panel.py",
    "test_mean.py",
    "test_slicer_logic.py",
    "test_experiment.py",
    "test_training_torchrun.py",
    "test_simulate.py",
    "test_project.py",
    "test_training.py",
    "test_lab.py",
    "test_slicer_cases.py",
)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A file is one process's work (``pytest -n 2``): what its tests share is trained, simulated or started once."""
    from xdist.scheduler import LoadFileScheduling

    if config.getvalue("dist") != "load":  # another way was asked for
        return None
    config.option.loadscopereorder = False  # the order is that of the collection
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Dear files first, where several processes share the work; else the order stays."""
    if hasattr(config, "workerinput"):
        order = {name: place for place, name in enumerate(DEAR)}
        items.sort(key=lambda item: order.get(item.path.name, len(order)))


@dataclass(frozen=True)
class Head:
    """Files of one small made-up head."""

    t1w: Path
    flair: Path
    mask: Path


def _randomiser(seed: int, frozen: bool = False) -> Callable[[torch.nn.Module, float], torch.nn.Module]:
    """What adds noise to the weights of a module: to those that learn, or to ``frozen`` ones as well."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def randomised(module: torch.nn.Module, scale: float) -> torch.nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                if frozen or parameter.requires_grad:
                    parameter += scale * torch.randn(parameter.shape, generator=generator)
        return module

    return randomised


def _save_base(
    folder: Path, config: ModelConfig, psr: torch.nn.Module, randomised: Callable[..., torch.nn.Module]
) -> Bundle:
    """A foundation bundle with this PSR autoencoder, all else random."""
    from DEMISTCore.bundle import save_bundle
    from DEMISTCore.diffusion import NoiseSchedule
    from DEMISTCore.networks import build_autoencoder, build_backbone

    return save_bundle(
        folder,
        config=config,
        weights={
            "autoencoder_psr": psr,
            "autoencoder_condition": randomised(build_autoencoder(config.condition), 0.1),
            "backbone": randomised(build_backbone(config.backbone), 0.02),
        },
        schedule=NoiseSchedule(zero_snr=True),
        latent_scale=1.5,
        condition_scale=0.8,
        spacing=4.0,
        training={"data": "none: random weights, for tests"},
        storage="fp32",
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See :func:`save_tiny_bundle`."""
    return save_tiny_bundle(tmp_path_factory.mktemp("bundles"))


def save_tiny_bundle(root: Path) -> Path:
    """Folder of a demist bundle, its base beside it (``tiny-base``): preset ``tiny``, random weights, 4 mm grid.

    Every weight is random, those that start at zero too, so that all streams have an effect.
    """
    import torch

    from DEMISTCore.bundle import save_bundle
    from DEMISTCore.networks import PRESETS, Demist, build_autoencoder

    config = PRESETS["tiny"]
    randomised = _randomiser(7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        psr = randomised(build_autoencoder(config.psr), 0.1)
        with torch.no_grad():  # around PSR 0.12: clipping at zero must not hide what networks do
            psr.decoder.blocks[-1].conv.bias += 0.6
        base = _save_base(root / "tiny-base", config, psr, randomised)
        demist = randomised(Demist(base.backbone, config.streams, config.condition.latent_channels), 0.05)
        save_bundle(
            root / "tiny",
            config=config,
            weights={"streams": demist},
            base=base,
            sampling={"sampler": "dpmpp_2m", "steps": 3, "seeds": 2},
            training={"data": "none: random weights, for tests"},
            storage="fp32",
        )
    return root / "tiny"


@pytest.fixture(scope="session")
def tiny_mean_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a demist bundle with a mean network, which it recommends: preset ``tiny_mean``, random, 4 mm grid."""
    import torch

    from DEMISTCore.bundle import save_bundle
    from DEMISTCore.networks import PRESETS, build_autoencoder, build_demist

    config = PRESETS["tiny_mean"]
    root = tmp_path_factory.mktemp("mean-bundles")
    randomised = _randomiser(8, frozen=True)
    with torch.random.fork_rng():
        torch.manual_seed(8)
        base = _save_base(root / "tiny-mean-base", config, randomised(build_autoencoder(config.psr), 0.1), randomised)
        demist = randomised(build_demist(config, base.backbone), 0.05)
        with torch.no_grad():  # as above; and the protocol must be heard
            local = demist.mean.decoder.local
            local.line *= 0.2
            local.line[-1] += 0.6
            local.last.weight *= 0.2
            demist.mean.decoder.last.weight *= 0.2
            randomised(demist.mean.knowledge, 0.3)
        save_bundle(
            root / "tiny-mean",
            config=config,
            weights={"streams": demist},
            base=base,
            sampling={"mode": "mean", "sampler": "dpmpp_2m", "steps": 2, "seeds": 2, "start": 0.5},
            training={"data": "none: random weights, for tests"},
            storage="fp32",
        )
    return root / "tiny-mean"


@pytest.fixture(scope="session")
def calibrated_bundle(tiny_mean_bundle: Path) -> Path:
    """The same with a made-up calibration: the network's own SD and 10 % of the map; 90 % are within 2 SD."""
    import json
    from shutil import copytree

    from DEMISTCore.bundle import description_hash
    from DEMISTCore.networks.knowledge import DESCRIPTION_WIDTH
    from DEMISTCore.uncertainty import Calibration, Quantiles
    from DEMISTCore.uncertainty.typical import Typical

    constant = Quantiles((1.0,), (0.1,), (((1.0,),), ((2.0,),)))
    calibration = Calibration(
        subjects=24,
        levels=(0.5, 0.9),
        scale_sd=0.1,
        mean_nodes=(0.0, 0.15),
        sd_nodes=(0.01,),
        gains=((1.0,), (1.0,)),
        voxel_quantiles=((1.0, 1.0), (2.0, 2.0)),
        region=(0.05, 0.0, 0.0, 1.0),
        correlation_ml=0.3,
        quantiles={"region": constant, "lesion": constant},
        ood_limit=1e6,
        ood_power=1.0,
    )
    typical = Typical.fit(np.random.default_rng(0).standard_normal((20, DESCRIPTION_WIDTH)))
    folder = Path(copytree(tiny_mean_bundle, tiny_mean_bundle.with_name("tiny-calibrated")))
    told = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    told["name"] = "tiny-calibrated"
    told["uncertainty"] = {"calibration": calibration.to_dict(), "typical": typical.to_dict()}
    told["hash"] = description_hash(told)
    (folder / "bundle.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Head:
    """See :func:`write_head`."""
    return write_head(tmp_path_factory.mktemp("head"))


def write_head(folder: Path) -> Head:
    """T1w, FLAIR and brain mask of a made-up head: nested ellipsoids on an oblique LPS grid of 3.5 mm voxels."""
    import nibabel as nib

    shape = (44, 50, 40)
    rng = np.random.default_rng(3)
    angle = 0.12
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-3.5, -3.5, 3.5])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    radius = np.sqrt((x / 18) ** 2 + (y / 21) ** 2 + (z / 16) ** 2)
    brain, white, ventricle = radius < 1, radius < 0.8, np.sqrt((x / 5) ** 2 + (y / 8) ** 2 + (z / 4) ** 2) < 1
    t1w = np.select([ventricle, white, brain], [200.0, 900.0, 600.0], 60.0) + rng.normal(0, 15, shape)
    flair = np.select([ventricle, white, brain], [100.0, 500.0, 650.0], 40.0) + rng.normal(0, 15, shape)
    for name, data in (("t1w", t1w), ("flair", flair), ("mask", brain)):
        nib.save(nib.Nifti1Image(data.astype(np.float32), affine), folder / f"{name}.nii.gz")
    return Head(folder / "t1w.nii.gz", folder / "flair.nii.gz", folder / "mask.nii.gz")


@pytest.fixture(autouse=True)
def log_levels_stay():
    """Command lines called in this process set log levels for good, as a program may; a later test must not feel it."""
    names = [None, *(name for name in logging.root.manager.loggerDict if name.startswith("DEMISTCore"))]
    before = {name: logging.getLogger(name).level for name in {*names, "DEMISTCore", "DEMISTCore.preprocess"}}
    yield
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("DEMISTCore"):
            logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))
    logging.getLogger().setLevel(before[None])
