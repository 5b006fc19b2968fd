"""Time and memory of the full-size Brain LDM: ``python benchmarks/brain_ldm_full_size.py --steps 2``.

Weights are random (time and memory do not depend on them), written in the published format by a process of its own, so
that its memory does not count, and loaded as a user would. Needs 2.5 GB of disk and, at the published size on a CPU,
16 GiB of memory; what is needed is said first, and refused where it is not there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def write_random(folder: str) -> None:
    """A published folder with random weights."""
    import torch

    from DEMISTCore.networks.autoencoder import build_autoencoder
    from DEMISTCore.networks.brain_ldm import BRAIN_LDM_UNET, BRAIN_LDM_VAE, CONDITIONS, build_unet
    from DEMISTCore.published.ddim import CARD
    from DEMISTCore.published.folder import write_folder

    torch.manual_seed(0)
    write_folder(
        Path(folder),
        autoencoder=(BRAIN_LDM_VAE, build_autoencoder(BRAIN_LDM_VAE)),
        unet=(BRAIN_LDM_UNET, build_unet(BRAIN_LDM_UNET)),
        scheduler=CARD,
        conditions=CONDITIONS,
        latent_shape=(20, 28, 20),
        title="Brain LDM, random weights",
        names="generative",
    )


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
    from DEMISTCore.devices import available_memory, describe_device, peak_memory

    with tempfile.TemporaryDirectory(prefix="brain-ldm-") as folder:
        writer = multiprocessing.get_context("spawn").Process(target=write_random, args=(folder,))
        writer.start()
        writer.join()
        if writer.exitcode:
            return writer.exitcode
        start = time.monotonic()
        model = BrainLDM.from_pretrained(folder, device=args.device)
        loaded = time.monotonic() - start
    latent = tuple(n // model.vae.factor for n in args.shape)
    weights = sum(p.numel() * p.element_size() for m in (model.unet, model.vae.network) for p in m.parameters())
    told: dict[str, object] = {
        "device": describe_device(model.device),
        "shape": list(args.shape),
        "steps": args.steps,
        "load_s": loaded,
        "weights_gib": weights / 2**30,
        "predicted_unet_gib": model.memory(latent) / 2**30,
        "predicted_decode_gib": model.vae.decode_memory(latent) / 2**30,
        "free_gib": available_memory(model.device) / 2**30,
    }
    print(json.dumps(told), flush=True)
    stamps, cpu, peaks = [time.monotonic()], [time.process_time()], [peak_memory()]

    def note(*_: object) -> None:
        stamps.append(time.monotonic())
        cpu.append(time.process_time())
        peaks.append(peak_memory())
        print(
            f"step {len(cpu) - 1}: {stamps[-1] - stamps[-2]:.1f} s ({cpu[-1] - cpu[-2]:.1f} s of processor time), "
            f"peak {peaks[-1] / 2**30:.2f} GiB",
            flush=True,
        )

    volume = model.sample(steps=args.steps, shape=tuple(args.shape), progress=note)
    told["step_s"] = (stamps[-1] - stamps[0]) / args.steps
    told["decode_s"] = time.monotonic() - stamps[-1]
    # On a machine that others use as well, the processor's time says more than the clock.
    told["step_cpu_s"], told["decode_cpu_s"] = (cpu[-1] - cpu[0]) / args.steps, time.process_time() - cpu[-1]
    told["finite"] = bool(abs(volume.array).max() < float("inf"))
    told["peak_loaded_gib"], told["peak_steps_gib"] = peaks[0] / 2**30, peaks[-1] / 2**30
    told["peak_memory_gib"] = peak_memory() / 2**30
    if model.device.type == "cuda":
        told["peak_gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(told, indent=1))
    if args.out:
        args.out.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
