"""pix2pix in three dimensions: the regression's U-Net, judged by a discriminator that sees scans and map together.

P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros, CVPR 2017 (arXiv 1611.07004): a U-Net generator, a PatchGAN on (input,
output), L1 with a hundred times the adversarial term's weight. Here: MONAI's BasicUNet and PatchDiscriminator, volumes
for slices, least squares for the cross entropy (Mao et al., ICCV 2017), as later image translation has it. No noise
goes in: the authors report that their generator learned to ignore it.
"""

from __future__ import annotations

from pathlib import Path

from .regression import Regression, build_regression

#: The generator is the regression's network: what differs between the two is the loss.
build_generator = build_regression
STAGE = "pix2pix"


def load_pix2pix(source: str | Path) -> Regression:
    """The generator of a ``pix2pix`` run, with its averaged weights.

    Raises:
        InputError: no such run, no checkpoint yet, or a run of another stage.
    """
    from .regression import load_unet

    return load_unet(source, STAGE)
