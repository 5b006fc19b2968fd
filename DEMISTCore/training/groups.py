"""Settings that every stage has, and the groups that stages share. No torch here: ``--help`` lists the keys."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PreprocessSettings:
    """How raw images become the model grid, see :func:`DEMISTCore.preprocess.prepare`."""

    register: bool = False  # simulated and research pairs usually share a grid; the pipeline registers real ones
    bias_correct: bool = True
    skull_strip: str = "auto"
    brain_mask: str = "truth"  # "truth": the data set's own mask where there is one; "none": always extract
    spacing: float = 1.0
    shape: tuple[int, ...] | None = None
    multiple: int = 16
    # Whether PSR maps lie on the T1w already; null: as their names say (space-T1w), and simulated truths do. Others are
    # registered.
    already_aligned: bool | None = None
    psr_zeros: str = "auto"  # a PSR of exactly 0: "unknown", "known", or "auto": known in simulated truths alone


@dataclass
class Settings:
    """Keys that every stage has."""

    # data
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    cache: str | None = None  # None: a folder "cache" beside the run
    validation: float = 0.1  # fraction of the subjects held out, at least one
    validation_subjects: tuple[str, ...] = ()  # names instead of a fraction
    exclude_subjects: tuple[str, ...] = ()  # never read: the test set
    accept_alarms: bool = False  # train on maps that do not seem to lie on their scans all the same
    levels: str | None = None  # JSON file: factors by person, for PSR, as finetune writes (:mod:`.levels`)
    bids_filter: str | None = None  # JSON file that says which images are meant, as that of BIDS Apps
    workers: int = 1  # processes that preprocess subjects
    # model and noise
    model: dict = field(default_factory=dict)  # a preset's name, or networks.config.ModelConfig as a mapping
    schedule: dict = field(default_factory=dict)  # keyword arguments of diffusion.NoiseSchedule
    # loop
    seed: int = 0
    steps: int | None = None
    max_minutes: float | None = None
    batch: int = 2
    accumulate: int = 1  # micro-batches a step: equal to ``batch`` times as many, for every stage's losses
    lr: float = 3e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warmup: int = 100
    decay: str = "cosine"  # "cosine" or "constant"
    lr_end: float = 0.01  # where the cosine ends, as a fraction of lr
    ema: float = 0.999
    clip: float = 1.0  # gradient norm; 0: none
    # machine
    # "bf16", "fp16", "fp32", or "auto": what the hardware computes in; a run keeps what it began with
    precision: str = "auto"
    device: str = "auto"  # auto, cpu, cuda, mps
    devices: int = 1
    nodes: int = 1
    strategy: str = "ddp"  # with several processes: "ddp": each has it all; "fsdp": each has a part of what is trained
    threads: int = 0  # 0: torch decides
    channels_last: bool = True
    checkpoint_activations: bool = False
    # report
    log_every: int = 20
    validate_every: int = 500
    preview_every: int = 500
    save_every: int = 250


@dataclass
class AugmentSettings:
    """Random changes of the condition images' contrast; see :func:`.data.augment`."""

    probability: float = 0.8
    gain: float = 0.15
    offset: float = 0.08
    gamma: float = 0.3
    bias: float = 0.15
    noise: float = 0.05
    blur: float = 0.8
    highlights: float = 0.0  # largest share of the FLAIR's contrast above tissue that is taken away


def slight() -> AugmentSettings:
    """What distinguishes scanners is in the data, and quantities hang on contrast."""
    return AugmentSettings(0.5, gain=0.0, offset=0.0, gamma=0.0, bias=0.03, noise=0.02, blur=0.6)


@dataclass
class LatentSettings(Settings):
    """What both diffusion stages share."""

    crop: tuple[int, ...] | None = (24, 28, 24)  # latent positions; None: the whole volume
    flip: bool = True
    focus: tuple[float, ...] = (0.05, 0.45)  # times, as fractions of the schedule, that get more samples ...
    focus_share: float = 0.0  # ... this share of them; the others are spread over all times
    latent_augmentations: int = 0  # encodings of contrast-augmented copies of x, cached beside the plain one
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    # "prediction": the error of v or epsilon as it is; "x0": the same error counted in z_0, which stops the last,
    # almost noise-free times from taking most of the gradient (Salimans and Ho 2022, section 4, discuss such weights)
    weighting: str = "prediction"
    validation_crops: int = 8
    preview_steps: int = 12


@dataclass
class WarpSettings:
    """Random geometry of crops; see :func:`.warp.draw`."""

    probability: float = 0.6
    upend: float = 0.4
    degrees: float = 12.0
    stretch: float = 0.08
    bend: float = 2.0


@dataclass
class PaintSettings:
    """Lesions painted into crops; see :func:`.paint.paint`."""

    probability: float = 0.5
    most: int = 6
    faint: float = 0.25
    specks: float = 0.4


@dataclass
class LocalSettings:
    """The mean's first part, fitted to voxels before the networks; see :mod:`.local`."""

    crops: int = 8  # of each scan
    voxels: int = 512  # of each crop
    rounds: int = 20  # over all of them
    batch: int = 32  # crops
    lr: float = 2e-3
    weight_decay: float = 0.01
    noise: float = 1.0  # standard deviations, on the description of a scan
    dropout_scan: float = 0.5  # of what becomes of the description
    dropout: float = 0.1  # share of the crops without the semantic, and without the adaptive stream
    error_scale: float = 0.1  # errors are counted in these, of the PSR range
