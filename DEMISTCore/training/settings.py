"""What is set for a training run: the dataclasses' defaults, YAML presets, ``key=value`` overrides.

Order, later wins: the defaults (:mod:`.groups`, :mod:`.stages`), the preset's common keys, the preset's section of the
stage, the overrides.
No torch here: ``--help`` lists the keys.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..schema import read_text, shown
from .groups import Settings
from .limits import check_expansion, check_settings
from .stages import STAGES

#: Largest YAML that is read.
YAML_BYTES = 128 << 10
PRESET_FOLDER = Path(__file__).parent / "presets"


# A resumed run must go on as it began; only what does not touch the numbers, and its length, may change.
RESUMABLE = {"steps", "max_minutes", "cache", "workers", "threads", "device", "devices", "nodes", "strategy"} | {
    f"{what}_every" for what in ("log", "validate", "preview", "save")
}
_CHOICES = {
    "decay": ("cosine", "constant"),
    "precision": ("auto", "bf16", "fp16", "fp32"),
    "weighting": ("prediction", "x0"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "strategy": ("ddp", "fsdp"),
    "brain_mask": ("truth", "none"),
    "skull_strip": ("auto", "deepbet", "none"),
    "psr_zeros": ("auto", "known", "unknown"),
}
_POSITIVE = (
    "batch",
    "accumulate",
    "lr",
    "log_every",
    "validate_every",
    "preview_every",
    "save_every",
    "steps",
    "max_minutes",
    "devices",
    "nodes",
    "workers",
    "patch",
    "crop",
    "decode",
    "spacing",
    "shape",
    "multiple",
    "validation_patches",
    "validation_crops",
    "preview_steps",
    "channels",
)


def resolve(stage: str, config: str | Path | None = None, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a stage from a preset's name or a YAML file, and ``key=value`` overrides.

    Raises:
        InputError: unknown preset or key (the nearest is named), a value of the wrong type, bad YAML.
    """
    tree = _tree(STAGES[stage].settings)
    tree["model"], tree["schedule"] = _model("small", "model"), _schedule()
    _apply_file(tree, stage, str(config or "small"), seen=())
    return build(stage, override(tree, overrides))


def override(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` overrides (``a.b=value`` for nested keys) to a resolved mapping, a copy of it."""
    tree = _plain(tree)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{text!r} is not an override; write key=value, for example steps=1000.")
        _merge(tree, _nest(key.split("."), _parse(value, text)), origin=text)
    return tree


def build(stage: str, tree: Mapping[str, Any]) -> Settings:
    """Settings from a fully resolved mapping (a run's ``config.yaml``)."""
    try:
        settings = _construct(STAGES[stage].settings, tree)
    except RecursionError:
        raise InputError("The settings are nested too deeply.") from None
    if settings.steps is None and settings.max_minutes is None:
        raise InputError("Say how long to train: steps=... or max_minutes=... (or both; the first to end ends it).")
    for name, choices in _CHOICES.items():
        for owner in (settings, settings.preprocess):
            if hasattr(owner, name) and getattr(owner, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {getattr(owner, name)!r}.")
    for name in _POSITIVE:
        for owner in (settings, settings.preprocess):
            value = getattr(owner, name, None)
            if value is not None and not min(value if isinstance(value, tuple) else (value,), default=1) > 0:
                raise InputError(f"{name} must be above 0, not {value}.")
    if not 0 <= settings.ema < 1:
        raise InputError(f"ema must be at least 0 and below 1, not {settings.ema}.")
    check_settings(settings)
    focus = getattr(settings, "focus", (0.0, 1.0))
    if not focus[0] < focus[1]:
        raise InputError(f"focus needs two rising numbers from 0 to 1, for example [0.05, 0.45], not {list(focus)}.")
    return settings


def to_dict(settings: Settings) -> dict[str, Any]:
    """Plain YAML-ready mapping; :func:`build` reads it back."""
    return _plain(asdict(settings))


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as YAML, atomically, keys in the order given."""
    import yaml

    from ..files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(content), sort_keys=False, default_flow_style=None, width=100))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; InputError where it is none."""
    import yaml

    try:
        content = _load_yaml(read_text(path, YAML_BYTES))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise InputError(f"{path} is not valid YAML{where}; fix or remove it.") from error
    except (ValueError, OverflowError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{path} is not valid YAML ({why}); fix or remove it.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold 'key: value' lines, not a {type(content).__name__}.")
    return content


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


# --- from here on: how it is done -----------------------------------------------------------------------------------


def _apply_file(tree: dict[str, Any], stage: str, name: str, seen: tuple[str, ...]) -> None:
    path = PRESET_FOLDER / f"{name}.yaml" if name in presets() else Path(name)
    if not path.is_file():
        raise InputError(f"There is no preset or file {name!r}; presets are {', '.join(presets())}.")
    if str(path) in seen:
        raise InputError(f"{path} names itself as its base; remove that 'base:' line.")
    content = read_yaml(path)
    if "base" in content:
        _apply_file(tree, stage, str(content.pop("base")), (*seen, str(path)))
    section = content.pop(stage, None) or {}
    for other in STAGES:
        content.pop(other, None)
    for part in (content, section):
        if not isinstance(part, dict):
            raise InputError(f"{path}: the section '{stage}' should hold 'key: value' lines.")
        _merge(tree, part, origin=str(path))


def _parse(text: str, override: str) -> Any:
    import yaml

    try:
        return _load_yaml(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"The value of {override!r} is not valid; write for example key=3 or key=[1,2,3].") from error


def _load_yaml(text: str) -> Any:
    """What a YAML text says, see :func:`_parsed`; the caller's own copy."""
    return deepcopy(_parsed(text))


@lru_cache(maxsize=32)  # the presets are read over and over
def _parsed(text: str) -> Any:
    """YAML 1.1 of bounded size, except that 010 is text (a subject's name), not 8, and 1e-4 a number, not text."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = "tag:yaml.org,2002:int"
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != number]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(number, re.compile(r"[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
    exponent = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))
    depth = 0
    for bracket in re.findall(r"[][{}]", text):  # the parser itself recurses, and slowly
        depth = max(depth + (1 if bracket in "[{" else -1), 0)
        if depth > 100:
            raise ValueError("it is nested too deeply")
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        check_expansion(node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _nest(keys: Sequence[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def _merge(tree: dict[str, Any], update: Mapping[str, Any], origin: str, prefix: str = "") -> None:
    for key, value in update.items():
        name = f"{prefix}{key}"
        if key not in tree:
            near = difflib.get_close_matches(str(key), list(tree), 1, 0.5)
            hint = f"; did you mean {prefix}{near[0]!s}?" if near else f"; there are {', '.join(map(str, tree))}."
            raise InputError(f"Unknown key {name!r} in {origin}{hint}")
        if name == "model" and isinstance(value, str):
            tree[key] = _model(value, origin)
        elif isinstance(tree[key], dict):
            if not isinstance(value, Mapping):
                raise InputError(f"{name} in {origin} has keys of its own: {', '.join(tree[key])}.")
            _merge(tree[key], value, origin, prefix=f"{name}.")
        else:
            tree[key] = value


def _model(name: str, origin: str) -> dict[str, Any]:
    from ..networks.config import PRESETS

    if name not in PRESETS:
        raise InputError(f"There is no model {name!r} ({origin}); there are {', '.join(PRESETS)}.")
    return _plain(PRESETS[name].to_dict())


def _schedule() -> dict[str, Any]:
    # Mirrors diffusion.NoiseSchedule, which needs torch; a test compares the two. What is predicted, v or epsilon, is
    # said once, in model.backbone.prediction.
    return {
        "steps": 1000,
        "kind": "scaled_linear",
        "beta_start": 0.0015,
        "beta_end": 0.0195,
        "zero_snr": False,
        "spacing": "trailing",
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _tree(cls: type) -> dict[str, Any]:
    """The defaults of a stage. A stage may give a nested group defaults of its own: the group's values count."""
    tree = {}
    for item in fields(cls):
        value = item.default_factory() if item.default_factory is not MISSING else item.default
        tree[item.name] = _plain(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value)
    return tree


def _construct(cls: type, tree: Mapping[str, Any], prefix: str = "") -> Any:
    hints = typing.get_type_hints(cls)
    known = {item.name for item in fields(cls)}
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.5)
            raise InputError(f"Unknown key {prefix + str(key)!r}" + (f"; did you mean {near[0]}?" if near else "."))
    return cls(**{key: _typed(value, hints[key], prefix + key) for key, value in tree.items()})


def _typed(value: Any, hint: Any, name: str) -> Any:
    """The value as its type says: YAML gives 3 where 3.0 is meant, and one thing where a list of it is."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if isinstance(hint, type) and is_dataclass(hint):
        return _construct(hint, value, f"{name}.") if isinstance(value, Mapping) else _wrong(name, value, "a mapping")
    if hint is dict:
        return dict(value) if isinstance(value, Mapping) else _wrong(name, value, "a mapping")
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if inner is int and isinstance(value, int) and not isinstance(value, bool):
            value = [value] * 3
        if inner is str and isinstance(value, str):
            value = [value]
        if not isinstance(value, (list, tuple)):
            return _wrong(name, value, "a list")
        return tuple(_typed(item, inner, name) for item in value)
    if hint is bool:
        return value if isinstance(value, bool) else _wrong(name, value, "true or false")
    if hint is int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if whole else _wrong(name, value, "a whole number")
    if hint is float:
        try:
            return float(value) if not isinstance(value, bool) else _wrong(name, value, "a number")
        except (TypeError, ValueError, OverflowError):
            return _wrong(name, value, "a number")
    return str(value) if isinstance(value, (str, int)) else _wrong(name, value, "text")


def _wrong(name: str, value: Any, wanted: str) -> Any:
    raise InputError(f"{name} must be {wanted}, not {shown(value)}.")
