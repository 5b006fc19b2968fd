"""Time and memory of the full-size Brain LDM: ``python benchmarks/brain_ldm_full_size.py``.

Weights are random (time and memory do not depend on them), written in the published format and loaded as a user would.
Needs 5 GB of disk and, at the published size on a CPU, 16 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Build, write, load, sample, report."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    p.add_argument("--steps", type=int, default=50, help="of DDIM (default: %(default)s)")
    p.add_argument("--shape", type=int, nargs=3, default=(160, 224, 160), metavar=("X", "Y", "Z"))
    p.add_argument("--out", type=Path, help="also write the numbers as JSON")
    args = p.parse_args(argv)
    import torch

    from DEMISTCore import BrainLDM
    from DEMISTCore.devices import describe_device
    from DEMISTCore.networks.autoencoder import build_autoencoder
    from DEMISTCore.networks.brain_ldm import BRAIN_LDM_UNET, BRAIN_LDM_VAE, CONDITIONS, build_unet
    from DEMISTCore.published.ddim import CARD
    from DEMISTCore.published.folder import write_folder

    with tempfile.TemporaryDirectory(prefix="brain-ldm-") as folder:
        torch.manual_seed(0)
        write_folder(
            Path(folder), autoencoder=(BRAIN_LDM_VAE, build_autoencoder(BRAIN_LDM_VAE)),
            unet=(BRAIN_LDM_UNET, build_unet(BRAIN_LDM_UNET)), scheduler=CARD, conditions=CONDITIONS,
            latent_shape=(20, 28, 20), title="Brain LDM, random weights", names="generative",
        )  # fmt: skip
        start = time.monotonic()
        model = BrainLDM.from_pretrained(folder, device=args.device)
        loaded = time.monotonic() - start
    told: dict[str, object] = {"device": describe_device(model.device), "shape": list(args.shape), "load_s": loaded}
    stamps = [time.monotonic()]
    volume = model.sample(
        steps=args.steps, shape=tuple(args.shape), progress=lambda *_: stamps.append(time.monotonic())
    )
    told["step_s"] = (stamps[-1] - stamps[0]) / args.steps
    told["decode_s"] = time.monotonic() - stamps[-1]
    told["finite"] = bool(abs(volume.array).max() < float("inf"))
    told["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if model.device.type == "cuda":
        told["peak_gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(told, indent=1))
    if args.out:
        args.out.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
