"""A quicker start of DEMIST's own processes: MONAI without what it would only look for.

``import monai`` loads all of MONAI, and with it every optional package that is installed: pandas, matplotlib,
TensorBoard, scikit-learn and more, for functions that DEMIST never calls. On an idle core that takes two thirds of the
2.5 s of that import, each time a worker, a command or a rank of a training starts. MONAI itself needs NumPy and torch
alone and copes with all else missing; so these packages are "missing" while it is imported, and there again after.

For processes of our own only (:func:`DEMISTCore.cli.run`): who imports DEMISTCore into a program of his own gets the
whole of MONAI.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

#: What MONAI looks for and DEMIST does not use through it, each slow to load. Packages, or modules of one.
SKIPPED = frozenset(
    {
        "h5py",
        "huggingface_hub",
        "ignite",
        "itk",
        "matplotlib",
        "mlflow",
        "pandas",
        "pydicom",
        "scipy.signal",
        "scipy.stats",
        "skimage",
        "sklearn",
        "tensorboard",
        "tensorboardX",
        "torchvision",
        "transformers",
    }
)


def install() -> None:
    """Let ``monai`` load lean when this process imports it; nothing happens if it has, or if this was called before."""
    if "monai" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds ``monai``, and while that is loaded finds none of :data:`SKIPPED`; then it is gone."""

    def __init__(self) -> None:
        self.thread: int | None = None  # the one that loads monai: what others import meanwhile is their own affair

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.thread is not None:
            skipped = name in SKIPPED or name.partition(".")[0] in SKIPPED
            if skipped and self.thread == threading.get_ident():
                raise ModuleNotFoundError(f"{name} is not loaded for monai, see {__name__}", name=name)
            return None
        spec = PathFinder.find_spec(name, path) if name == "monai" else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(Loader):
    """Loads ``monai`` as its own loader does, lean; and whole, should a version of it not cope with that."""

    def __init__(self, own: Loader, finder: _Finder) -> None:
        self._own, self._finder = own, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._own
        self._finder.thread = threading.get_ident()
        try:
            self._own.exec_module(module)
        except ImportError:
            for name in [name for name in sys.modules if name.startswith("monai.")]:
                del sys.modules[name]
            self._let_go()
            self._own.exec_module(module)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._finder.thread = None
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
