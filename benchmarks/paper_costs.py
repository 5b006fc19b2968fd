"""What a training step of the experiment costs at the paper's size, counted without computing it.

    python benchmarks/paper_costs.py [--config brats]

Every network of the preset is built on torch's "meta" device, where tensors have shapes and no values, and a step of
its batch and crop is traced: parameters, floating point operations of forward and backward pass (torch's own counter),
and bytes that the backward pass keeps (autocast to bf16 counts them half). No GPU is needed, and nothing here is a
time: hours follow from what a GPU sustains.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from DEMISTCore.baselines.cwdm import build_cwdm
from DEMISTCore.baselines.ldm import build_latent_unet
from DEMISTCore.baselines.regression import build_regression
from DEMISTCore.losses import PatchGAN
from DEMISTCore.networks.autoencoder import build_autoencoder
from DEMISTCore.networks.backbone import build_backbone, freeze
from DEMISTCore.networks.demist import Demist
from DEMISTCore.networks.limits import read_model
from DEMISTCore.training.settings import resolve


def traced(modules: list[nn.Module], step: Callable[[], Tensor]) -> tuple[int, int, float, float]:
    """Parameters (all, trained), operations of a step, bytes that its backward pass keeps in float32."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()  # its wrapper in Python is a new one every time
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        step().backward()
    parameters = [p for module in modules for p in module.parameters()]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return sum(p.numel() for p in parameters), trained, counter.get_total_flops(), sum(kept.values())


def steps(config: str) -> dict[str, tuple[int, Callable[[], tuple[int, int, float, float]]]]:
    """Each stage's number of steps, and what traces one of them."""
    settings = {
        name: resolve(name, config)
        for name in ("autoencoder", "backbone", "demist", "vae", "ldm", "pix2pix", "regression", "cwdm")
    }
    model = read_model(settings["demist"].model)
    z_channels, c_channels = model.psr.latent_channels, model.condition.latent_channels

    def volume(stage: str, channels: int, extents: tuple[int, ...]) -> Tensor:
        return torch.empty(settings[stage].batch, channels, *extents, device="meta")

    def times(stage: str) -> Tensor:
        return torch.zeros(settings[stage].batch, dtype=torch.long, device="meta")

    def autoencoder() -> tuple[int, int, float, float]:
        networks = [build_autoencoder(model.psr), build_autoencoder(model.condition)]
        images = [volume("autoencoder", n, settings["autoencoder"].patch) for n in (1, 2)]
        return traced(networks, lambda: sum(net.decode(net.encode(x)[0]).mean() for net, x in zip(networks, images)))

    def latent(stage: str, build: Callable[[], nn.Module], given: int) -> Callable[[], tuple[int, int, float, float]]:
        def count() -> tuple[int, int, float, float]:
            network = build()
            z = volume(stage, given, settings[stage].crop)
            return traced([network], lambda: network(z, times(stage)).mean())

        return count

    def demist() -> tuple[int, int, float, float]:
        network = Demist(freeze(build_backbone(model.backbone)), model.streams, c_channels)
        z, c = (volume("demist", n, settings["demist"].crop) for n in (z_channels, c_channels))
        offset = torch.zeros(settings["demist"].batch, 3, device="meta")
        return traced([network], lambda: network(z, times("demist"), network.condition(c, offset=offset)).mean())

    def unet(stage: str) -> Callable[[], tuple[int, int, float, float]]:
        def count() -> tuple[int, int, float, float]:
            network = build_regression(settings[stage].channels)
            x = volume(stage, 2, settings[stage].patch)
            if stage == "regression":
                return traced([network], lambda: network(x).mean())
            gan = PatchGAN(3, settings[stage].discriminator_channels, settings[stage].discriminator_layers)

            def step() -> Tensor:
                y = network(x)
                fake = torch.cat([x, y], 1)
                seen = (fake, fake.detach(), torch.cat([x, x[:, :1]], 1))
                judged = [gan.discriminator(pair)[-1].mean() for pair in seen]
                return y.mean() + sum(judged)

            return traced([network, gan], step)

        return count

    def cwdm() -> tuple[int, int, float, float]:
        s = settings["cwdm"]
        network = build_cwdm(s.channels, s.blocks, s.groups)
        bands = volume("cwdm", 24, tuple(n // 2 for n in s.patch))
        return traced([network], lambda: network(bands, times("cwdm")).mean())

    counts = {
        "autoencoder": autoencoder,
        "backbone": latent("backbone", lambda: build_backbone(model.backbone), z_channels),
        "demist": demist,
        "vae": latent("vae", lambda: build_latent_unet(model.backbone, c_channels, z_channels), c_channels),
        "ldm": latent(
            "ldm",
            lambda: build_latent_unet(model.backbone, z_channels + c_channels, z_channels),
            z_channels + c_channels,
        ),
        "pix2pix": unet("pix2pix"),
        "regression": unet("regression"),
        "cwdm": cwdm,
    }
    return {name: (settings[name].steps or 0, count) for name, count in counts.items()}


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", default="brats", help="preset (default: %(default)s)")
    args = p.parse_args()
    print("| stage | parameters (M) | trained (M) | TFLOP a step | steps | kept for backward, bf16 (GB) | EFLOP |")
    print("|---|---|---|---|---|---|---|")
    for name, (number, count) in steps(args.config).items():
        with torch.device("meta"):
            try:
                parameters, trained, operations, kept = count()
            except (NotImplementedError, RuntimeError) as error:
                print(f"| {name} | cannot be traced: {str(error).splitlines()[0]} |")
                continue
        print(
            f"| {name} | {parameters / 1e6:.1f} | {trained / 1e6:.1f} | {operations / 1e12:.2f} | {number:,} | "
            f"{kept / 2e9:.1f} | {operations * number / 1e18:.1f} |"
        )


if __name__ == "__main__":
    main()
