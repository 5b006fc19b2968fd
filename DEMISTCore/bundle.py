"""A trained model on disk: ``bundle.json`` (what it is), safetensors files (the weights), ``MODEL_CARD.md``.

Two kinds make maps. A *foundation* bundle holds the two autoencoders and the frozen backbone, with noise schedule and
latent scales. A *demist* bundle holds the trained streams alone and names the foundation it was trained on by name and
hash: it is a delta over its base, as the Brain LDM bundle is over its autoencoder. Published models that DEMIST builds
on lie in the same form: an *autoencoder*, and an *ldm* over it (:mod:`.published.store`); so does the *segmentation*
network of :mod:`.regions.network`.

Nothing in a bundle is code and nothing is unpickled. ``bundle.json`` lists the SHA-256 of every weight file, and its
own hash covers all of that: one hash stands for the whole model. Documents (card, training log) are not covered, so
that a card can be corrected without making another model.

>>> bundle = load_bundle("demist-sim")       # doctest: +SKIP
>>> bundle.hash, bundle.base.name            # doctest: +SKIP
>>> bundle.demist, bundle.autoencoder_psr    # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BundleError, InputError
from .files import make_readable, sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .diffusion import NoiseSchedule
    from .networks.config import ModelConfig
    from .networks.demist import Demist

FORMAT = "demist-bundle"
FORMAT_VERSION = 1
DESCRIPTION_FILE = "bundle.json"
CARD_FILE = "MODEL_CARD.md"
DEFAULT_BUNDLE = "demist-sim"
#: Folders of bundles to search besides the package's own, separated as in PATH.
SEARCH_VARIABLE = "DEMIST_BUNDLES"

KINDS = {
    "foundation": ("autoencoder_psr", "autoencoder_condition", "backbone"),
    "demist": ("streams",),
    # Published models, see published.store.
    "autoencoder": ("autoencoder",),
    "ldm": ("unet",),
    # Tissue and lesions, see regions.network.
    "segmentation": ("segmentation",),
}
#: Kinds that are a delta over a base.
DELTAS = ("demist", "ldm")
#: What a download of a bundle needs.
PATTERNS = ("*.json", "*.safetensors", "*.md")
STORAGE = ("bf16", "fp16", "fp32")
RESEARCH_WARNING = "Synthesized PSR is a research estimate, not a measurement, and not for clinical use."
SIMULATED_WARNING = f"Trained on simulated PSR, never on measured PSR. {RESEARCH_WARNING}"
#: What synthesis does unless told otherwise; a bundle's own "sampling" goes over it.
SAMPLING = {"sampler": "dpmpp_2m", "steps": 10, "seeds": 4, "eta": 0.0, "spacing": "karras", "guidance": {}}

_HUB_ID = re.compile(r"(?:hf:)?([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(eq=False)
class Described:
    """A folder with a ``bundle.json``, and what every kind of it says of itself."""

    folder: Path
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """What the bundle calls itself."""
        return self.info["name"]

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return self.info["kind"]

    @property
    def hash(self) -> str:
        """SHA-256 over everything that matters: configuration, and the hashes of all weights and of the base."""
        return self.info["hash"]

    @property
    def simulated(self) -> bool:
        """True if it was trained on simulated images."""
        return bool(self.info["simulated"])


@dataclass(eq=False)
class Bundle(Described):
    """A model on disk; networks are built when first asked for, in float32, frozen, on the CPU.

    Attributes:
        folder: where it lies.
        info: the content of ``bundle.json``.
        base: the foundation under a demist bundle; None for a foundation.
    """

    base: Bundle | None = None

    @property
    def simulated(self) -> bool:
        """True if it, or what it builds on, was trained on simulated PSR."""
        return super().simulated or bool(self.base and self.base.simulated)

    @property
    def warning(self) -> str:
        """The sentence that must be seen wherever a person sees this bundle's output."""
        return SIMULATED_WARNING if self.simulated else RESEARCH_WARNING

    @property
    def licence(self) -> str:
        """Licence of the weights (SPDX)."""
        return self.info["licence"]

    @property
    def card(self) -> str:
        """The model card, Markdown; empty if there is none."""
        path = self.folder / CARD_FILE
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def sampling(self) -> dict[str, Any]:
        """Recommended sampler, steps, seeds, eta, spacing, guidance (weight by stream; empty: plain)."""
        return {**SAMPLING, **(self.base.info.get("sampling") or {} if self.base else {}), **self._get("sampling", {})}

    @cached_property
    def config(self) -> ModelConfig:
        """Shapes of all networks: the base's, with this bundle's streams."""
        from .networks.config import ModelConfig

        model = dict(self._foundation.info["model"])
        model.update(self.info["model"])
        try:
            return ModelConfig.from_dict(model)
        except (TypeError, ValueError) as error:
            raise self._error(f"has a model description that this version does not understand ({error})") from error

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """Noise schedule the backbone was trained with."""
        from .diffusion import NoiseSchedule

        if self._foundation.info.get("schedule") is None:
            raise self._error("has no noise schedule: it holds autoencoders only; train the backbone first")
        try:
            schedule = NoiseSchedule.from_dict(self._foundation.info["schedule"])
        except (TypeError, ValueError) as error:
            raise self._error(f"has a noise schedule that this version does not understand ({error})") from error
        if schedule.prediction != self.config.backbone.prediction:
            raise self._error("contradicts itself on what the backbone predicts (v or epsilon); save it again")
        return schedule

    @property
    def latent_scale(self) -> float:
        """z = latent_scale * E_y(PSR / psr_range)."""
        return self._scale("latent_scale")

    @property
    def condition_scale(self) -> float:
        """c = condition_scale * E_x(T1w, FLAIR)."""
        return self._scale("condition_scale")

    @property
    def psr_range(self) -> float:
        """PSR (fraction) that the PSR autoencoder sees as 1."""
        return self._scale("psr_range")

    @property
    def spacing(self) -> float:
        """Voxel size of the model grid, mm."""
        return float(self._get("spacing", self._foundation.info.get("spacing", 1.0)))

    @cached_property
    def autoencoder_psr(self) -> nn.Module:
        """E_y and its decoder."""
        from .networks.autoencoder import build_autoencoder

        return self._foundation._load("autoencoder_psr", lambda: build_autoencoder(self.config.psr))

    @cached_property
    def autoencoder_condition(self) -> nn.Module:
        """E_x."""
        from .networks.autoencoder import build_autoencoder

        return self._foundation._load("autoencoder_condition", lambda: build_autoencoder(self.config.condition))

    @cached_property
    def backbone(self) -> nn.Module:
        """The unconditional diffusion U-Net."""
        from .networks.backbone import build_backbone

        return self._foundation._load("backbone", lambda: build_backbone(self.config.backbone))

    @cached_property
    def demist(self) -> Demist:
        """The backbone with its streams."""
        from .networks.demist import Demist

        if self.kind != "demist":
            raise self._error(
                "is a foundation without conditioning streams; give a demist bundle, or train one on it "
                "(python -m DEMISTCore.train demist)"
            )
        return self._load(
            "streams", lambda: Demist(self.backbone, self.config.streams, self.config.condition.latent_channels)
        )

    def has(self, part: str) -> bool:
        """True if the bundle (or its base) holds that part: ``autoencoder_psr``, ``backbone``, ``streams``, ..."""
        return f"{part}.safetensors" in self.info["files"] or bool(self.base and self.base.has(part))

    @property
    def _foundation(self) -> Bundle:
        return self.base or self

    def _get(self, key: str, default: Any) -> Any:
        value = self.info.get(key)
        return default if value is None else value

    def _scale(self, key: str) -> float:
        value = self._foundation.info.get(key)
        if not isinstance(value, (int, float)) or not value > 0:
            raise self._error(f"has no usable {key}; save it again")
        return float(value)

    def _error(self, what: str) -> BundleError:
        return BundleError(f"Bundle {self.folder} {what}.")

    def _load(self, part: str, build: Any) -> Any:
        """Build a network and fill it with the weights of ``part``, frozen."""
        import torch

        file = self.folder / f"{part}.safetensors"
        if file.name not in self.info["files"]:
            raise self._error(f"holds no {part}")
        module = build()
        own = module.streams_state_dict() if part == "streams" else module.state_dict()
        stored = _read_safetensors(file)
        for what, names in (("misses", own.keys() - stored.keys()), ("has unknown", stored.keys() - own.keys())):
            if names:
                raise self._error(
                    f"does not fit its own description: {file.name} {what} weights ({sorted(names)[0]} and "
                    f"{len(names) - 1} more); it was saved by another version of DEMIST, or changed"
                )
        for name, tensor in stored.items():
            if tensor.shape != own[name].shape:
                raise self._error(
                    f"does not fit its own description: {file.name}, {name} is {tuple(tensor.shape)} "
                    f"and should be {tuple(own[name].shape)}"
                )
            if not torch.isfinite(tensor).all():
                raise self._error(f"has NaN or infinite weights in {file.name} ({name}); train or download it again")
        stored = {name: tensor.to(own[name].dtype) for name, tensor in stored.items()}
        (module.load_streams_state_dict if part == "streams" else module.load_state_dict)(stored)
        return module.requires_grad_(False).eval()


def load_bundle(source: str | os.PathLike[str] | Bundle = DEFAULT_BUNDLE) -> Bundle:
    """Find a bundle, check every hash, and describe it; networks are built on first use.

    Args:
        source: a name among the shipped bundles (or in the folders of ``$DEMIST_BUNDLES``), a folder, or a Hugging
            Face id (``owner/name``, ``owner/name@revision``; needs the extra ``hub``). The base of a demist bundle is
            looked for beside it, in these places, and on the hub if the bundle names an id.

    Raises:
        BundleError: not found, damaged, foreign, of a newer format, or its base is missing or another one.
    """
    if isinstance(source, Bundle):
        return source
    return _open(find_folder(source), depth=0)


def _open(folder: Path, depth: int) -> Bundle:
    info = read_description(folder)
    check_files(folder, info)
    if info["kind"] == "foundation":
        return Bundle(folder, info)
    if info["kind"] == "segmentation":
        raise BundleError(f"{folder} is a tissue network for regions and makes no PSR maps; give a demist bundle.")
    if info["kind"] != "demist":
        raise BundleError(
            f"{folder} holds a published model ({info['kind']}), which makes no PSR maps by itself; train on it "
            "(python -m DEMISTCore.train demist --backbone), or give a demist bundle."
        )
    if depth:
        raise BundleError(f"Bundle {folder} serves as a base, but is a {info['kind']} bundle, not a foundation.")
    wanted = info["base"]
    base = _open(find_base(folder, wanted), depth=1)
    if base.hash != wanted["hash"]:
        raise BundleError(
            f"Bundle {folder} was trained on {wanted['name']} with hash {wanted['hash'][:12]}, and {base.folder} has "
            f"{base.hash[:12]}; get the {wanted['name']} that belongs to it."
        )
    return Bundle(folder, info, base)


# Finding ------------------------------------------------------------------------------------------------------------


def bundle_folders() -> list[Path]:
    """Where bundles are looked up by name: ``$DEMIST_BUNDLES``, then the package's own."""
    listed = os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep)
    return [Path(entry).expanduser() for entry in listed if entry] + [Path(__file__).parent / "bundles"]


def list_bundles() -> list[str]:
    """Names of the demist bundles that can be given as ``--bundle``; damaged ones are left out."""
    names = []
    for root in bundle_folders():
        for file in sorted(root.glob(f"*/{DESCRIPTION_FILE}")):
            try:
                if read_description(file.parent)["kind"] == "demist":
                    names.append(file.parent.name)
            except BundleError:
                continue
    return list(dict.fromkeys(names))


def find_folder(source: str | os.PathLike[str], patterns: Sequence[str] = PATTERNS) -> Path:
    """The folder that a name, a path or a Hugging Face id means; ``patterns`` are the files that a download gets.

    Raises:
        BundleError: there is none, or the hub is out of reach.
    """
    text = os.fspath(source)
    path = Path(text).expanduser()
    if path.name == DESCRIPTION_FILE and path.is_file():
        return path.parent
    # A name goes before a folder of that name in the working directory; "./name" is always a folder.
    if path.name == text:
        for root in bundle_folders():
            if (root / text / DESCRIPTION_FILE).is_file():
                return root / text
    if path.is_dir():
        return path
    if path.exists():
        raise BundleError(f"{path} is a file, not a bundle; give the folder that holds its {DESCRIPTION_FILE}.")
    hub = _HUB_ID.fullmatch(text)
    if hub and not text.startswith((".", "/", "~")):
        return _download(*hub.groups(), there_is_no=text, patterns=patterns)
    known = ", ".join(list_bundles()) or "none"
    raise BundleError(
        f"There is no bundle {text!r}: no folder, and no shipped bundle of that name (there are: {known}); "
        "give a name, a folder or a Hugging Face id (owner/name)."
    )


def find_base(folder: Path, wanted: Mapping[str, str]) -> Path:
    """The folder of the base that a bundle names: one whose hash fits if there is any, else one of that name."""
    candidates = [root / wanted["name"] for root in (folder.parent, folder, *bundle_folders())]
    there = [c for c in candidates if (c / DESCRIPTION_FILE).is_file()]
    for candidate in there:
        try:
            if read_description(candidate)["hash"] == wanted["hash"]:
                return candidate
        except BundleError:
            continue
    if there:
        return there[0]
    if wanted.get("hub"):
        return _download(wanted["hub"], None, there_is_no=wanted["name"])
    raise BundleError(
        f"Bundle {folder} builds on the {wanted.get('kind', 'foundation')} {wanted['name']}, which is not there; "
        f"put its folder beside {folder}, or into a folder named in ${SEARCH_VARIABLE}."
    )


def _download(repository: str, revision: str | None, there_is_no: str, patterns: Sequence[str] = PATTERNS) -> Path:
    """Get a bundle from the Hugging Face hub, or from its local cache where the hub is out of reach."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise BundleError(
            f"There is no folder {there_is_no!r}, and looking it up as a Hugging Face id needs huggingface_hub; "
            "run: pip install huggingface_hub"
        ) from error
    wanted = {"revision": revision, "allow_patterns": list(patterns)}
    try:
        return Path(snapshot_download(repository, **wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        at = f" at revision {revision}" if revision else ""
        raise BundleError(
            f"There is no folder {there_is_no!r}, and no model {repository}{at} on the Hugging Face hub "
            "(a private one needs HF_TOKEN); check the name."
        ) from error
    except Exception as error:  # what a missing network raises depends on the version and on its transport
        raise BundleError(
            f"There is no folder {there_is_no!r}, and the Hugging Face hub is out of reach; download the bundle "
            "where there is a network and give its folder."
        ) from error


# Reading and checking -----------------------------------------------------------------------------------------------


def read_description(folder: Path) -> dict[str, Any]:
    """``bundle.json``, checked for being one, for its version, and against its own hash."""
    file = folder / DESCRIPTION_FILE
    if not file.is_file():
        hint = " (it looks like a MONAI bundle)" if (folder / "configs" / "metadata.json").is_file() else ""
        raise BundleError(f"{folder} is not a DEMIST bundle{hint}: it has no {DESCRIPTION_FILE}; give another folder.")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is damaged (not JSON); get the bundle again.") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise BundleError(f"{file} does not describe a DEMIST bundle; give another folder.")
    version = info.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{file} is damaged (no format_version); get the bundle again.")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{file} is of bundle format {version}, newer than the {FORMAT_VERSION} this version of DEMIST knows; "
            "update DEMIST."
        )
    if info.get("hash") != description_hash(info):
        raise BundleError(f"{file} was changed or damaged after it was saved (wrong hash); get the bundle again.")
    # The hash is right, so what follows are mistakes of whoever wrote it.
    problems = [key for key, kind in _KEYS.items() if not isinstance(info.get(key), kind)]
    if info.get("kind") not in KINDS:
        problems.append("kind")
    elif info["kind"] in DELTAS and not (
        isinstance(info.get("base"), dict) and all(isinstance(info["base"].get(k), str) for k in ("name", "hash"))
    ):
        problems.append("base")
    if problems:
        raise BundleError(f"{file} lacks a valid {problems[0]!r}; it was not saved by DEMIST, save it again.")
    return info


_KEYS = {"name": str, "kind": str, "files": dict, "model": dict, "licence": str, "simulated": bool}


def description_hash(info: Mapping[str, Any]) -> str:
    """SHA-256 of a description without its own hash, in canonical JSON."""
    content = {key: value for key, value in info.items() if key != "hash"}
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def check_files(folder: Path, info: Mapping[str, Any]) -> None:
    """Every weight file is there, whole, and what was saved."""
    for name, entry in info["files"].items():
        if Path(name).name != name or not name.endswith(".safetensors") or name[:-12] not in KINDS[info["kind"]]:
            raise BundleError(f"Bundle {folder} lists a file it should not have ({name!r}); get it again.")
        file = folder / name
        if not file.is_file():
            raise BundleError(f"Bundle {folder} is incomplete: {name} is missing; get it again.")
        size = file.stat().st_size
        if size < entry["bytes"]:
            raise BundleError(
                f"{file} is truncated ({size:,} of {entry['bytes']:,} bytes); get the bundle again"
                + (" (it is a Git LFS pointer: run git lfs pull)." if _is_lfs_pointer(file) else ".")
            )
        if sha256(file) != entry["sha256"]:
            raise BundleError(f"{file} is damaged or was changed (wrong SHA-256); get the bundle again.")


def _is_lfs_pointer(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(40).startswith(b"version https://git-lfs")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{file} is not a readable safetensors file; get the bundle again.") from error


# Saving -------------------------------------------------------------------------------------------------------------


def save_bundle(
    folder: str | os.PathLike[str],
    *,
    config: ModelConfig,
    weights: Mapping[str, Mapping[str, Tensor] | nn.Module],
    name: str | None = None,
    base: Bundle | None = None,
    base_hub: str | None = None,
    schedule: NoiseSchedule | Mapping[str, Any] | None = None,
    latent_scale: float | None = None,
    condition_scale: float | None = None,
    psr_range: float | None = None,
    spacing: float | None = None,
    sampling: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    simulated: bool = True,
    licence: str = "Apache-2.0",
    description: str = "",
    version: str = "1",
    storage: str | Mapping[str, str] = "fp16",
    card: str | None = None,
    documents: Mapping[str, str | os.PathLike[str]] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Save a bundle, whole or not at all, and load it back.

    Args:
        folder: where to; its name is the bundle's unless ``name`` says otherwise.
        config: shapes of the networks. A demist bundle keeps of it the streams only.
        weights: for a foundation any of ``autoencoder_psr``, ``autoencoder_condition``, ``backbone``; for a demist
            bundle ``streams``. Each a module (a :class:`Demist` for ``streams``) or a state dict.
        base: the foundation that ``streams`` were trained on; makes this a demist bundle.
        base_hub: Hugging Face id of the base, for those who do not have it.
        schedule, latent_scale, condition_scale, psr_range, spacing: of a foundation; a demist bundle has its base's.
        sampling: recommended settings, over :data:`SAMPLING`: sampler, steps, seeds, eta, spacing, guidance.
        training: provenance: data, steps, configuration, versions; anything JSON.
        simulated: trained on simulated PSR. Only a bundle trained on measured PSR may say False.
        storage: ``"fp16"`` (half the size, error 2^-11; refused for weights beyond its range), ``"bf16"`` (error
            2^-8) or ``"fp32"``; for all parts, or by part.
        card: Markdown; by default one is written from the above.
        documents: further files to put in, by name (training log, configuration). Not covered by the hash.
        overwrite: replace a bundle that is there.

    Raises:
        InputError: the folder exists, or cannot be written to.
        ValueError: parts or settings that do not make a bundle.
    """
    folder = Path(folder)
    kind = "foundation" if base is None else "demist"
    if not weights or set(weights) - set(KINDS[kind]):
        raise ValueError(f"a {kind} bundle holds {', '.join(KINDS[kind])}, not {', '.join(weights) or 'nothing'}")
    if base is not None and base.kind != "foundation":
        raise ValueError(f"{base.name} is no foundation to build on")
    check_target(folder, overwrite)
    info: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "name": name or folder.name,
        "version": version,
        "description": description,
        "licence": licence,
        "simulated": bool(simulated),
        "warning": SIMULATED_WARNING if simulated or (base and base.simulated) else RESEARCH_WARNING,
    }
    model = config.to_dict()
    if base is None:
        from .networks.config import PSR_RANGE

        info["model"] = {key: value for key, value in model.items() if key != "streams"}
        info["schedule"] = schedule if schedule is None or isinstance(schedule, Mapping) else schedule.to_dict()
        info["latent_scale"] = latent_scale
        info["condition_scale"] = condition_scale
        info["psr_range"] = PSR_RANGE if psr_range is None else psr_range
        info["spacing"] = 1.0 if spacing is None else spacing
    else:
        info["model"] = {"streams": model["streams"]}
        info["base"] = {"name": base.name, "hash": base.hash, **({"hub": base_hub} if base_hub else {})}
    info["sampling"] = dict(sampling) if sampling else None
    info["training"] = dict(training) if training else {}
    info["documents"] = [CARD_FILE, *(documents or {})]

    info = write_bundle(folder, info, weights, storage, card, documents or {})
    return Bundle(folder, info, base)


def check_target(folder: Path, overwrite: bool) -> None:
    """Refuse to write over something, unless it is a bundle and may be replaced.

    Raises:
        InputError: it is there.
    """
    if folder.exists() and not overwrite:
        raise InputError(f"{folder} exists already; choose another name or allow overwriting (--overwrite).")
    if folder.exists() and not (folder / DESCRIPTION_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not a bundle and will not be overwritten; choose another name.")


def write_bundle(
    folder: Path,
    info: dict[str, Any],
    weights: Mapping[str, Mapping[str, Tensor] | nn.Module],
    storage: str | Mapping[str, str],
    card: str | None,
    documents: Mapping[str, str | os.PathLike[str]],
) -> dict[str, Any]:
    """Write weights, description, card and documents, whole or not at all; return the description with its hashes.

    Raises:
        InputError: the folder cannot be written to.
        ValueError: weights that cannot be stored as asked.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".tmp-{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror}; choose a folder you can write to.") from error
    try:
        building.chmod(0o755)
        info["files"] = {}
        for part, content in weights.items():
            file = building / f"{part}.safetensors"
            _write_safetensors(file, content, storage if isinstance(storage, str) else storage.get(part, "fp16"))
            info["files"][file.name] = {"sha256": sha256(file), "bytes": file.stat().st_size}
        info = json.loads(json.dumps(info))  # tuples become lists now, so that the hash is that of what is read back
        info["hash"] = description_hash(info)
        (building / DESCRIPTION_FILE).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", "utf-8")
        (building / CARD_FILE).write_text(_default_card(info) if card is None else card, "utf-8")
        for document, path in documents.items():
            shutil.copyfile(path, building / Path(document).name)
        _swap(building, folder)
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}; choose another folder.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return info


def _swap(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``; the old one is gone only when the new one is there."""
    if not folder.exists():
        os.replace(new, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".old-{folder.name}-", dir=folder.parent))
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_safetensors(file: Path, content: Mapping[str, Tensor] | nn.Module, storage: str) -> None:
    import torch
    from safetensors.torch import save_file

    if storage not in STORAGE:
        raise ValueError(f"storage must be one of {', '.join(STORAGE)}, not {storage!r}")
    if isinstance(content, torch.nn.Module):
        streams = getattr(content, "streams_state_dict", None)
        content = streams() if streams and file.stem == "streams" else content.state_dict()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[storage]
    tensors = {}
    for name, tensor in content.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{file.stem}: {name} has NaN or infinite values; this is not a trained model")
            tensor = tensor.to(dtype)
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{file.stem}: {name} is beyond the range of {storage}; store it as bf16 or fp32")
        tensors[name] = tensor.contiguous().clone()
    save_file(tensors, file)
    make_readable(file)


def _default_card(info: Mapping[str, Any]) -> str:
    """A model card from the description alone."""
    files = "\n".join(f"| {name} | {entry['bytes'] / 1e6:.1f} MB |" for name, entry in info["files"].items())
    base = f"Delta over `{info['base']['name']}` ({info['base']['hash'][:12]}).\n\n" if "base" in info else ""
    training = json.dumps(info["training"], indent=2, ensure_ascii=False)
    return textwrap.dedent("""\
        # {name}

        **{warning}**

        {description}

        {base}Licence of the weights: {licence}.

        | file | size |
        |---|---|
        {files}

        ## Training

        ```json
        {training}
        ```
        """).format(
        name=info["name"],
        warning=info["warning"],
        description=info["description"] or "Model for DEMIST: PSR maps from T1w and FLAIR.",
        base=base,
        licence=info["licence"],
        files=files,
        training=training,
    )


if __name__ == "__main__":
    from .cli import run
    from .published.command import main

    raise SystemExit(run(main))
