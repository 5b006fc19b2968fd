"""Our own processes start lean: MONAI without its optional packages, models opened without torch's compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from DEMISTCore.errors import InputError
from DEMISTCore.files import file_of_package
from DEMISTCore.networks import PRESETS, build_autoencoder, build_demist
from DEMISTCore.simulate import anatomy
from DEMISTCore.weights import shapes_only

ROOT = Path(__file__).parents[1]


def python(code: str, *path: Path) -> list[str]:
    """What a process of its own prints, as words."""
    places = os.pathsep.join([*map(str, path), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_command_opens_models_without_what_it_does_not_use():
    code = """
import sys
from DEMISTCore import cli, lean
def main(argv):
    import torch
    heavy = {"sympy", "torch._dynamo", *lean.SKIPPED} - set(sys.modules)
    from DEMISTCore.bundle import load_bundle
    from DEMISTCore.regions.network import open_network
    bundle = load_bundle("demist-sim")
    bundle.demist, bundle.autoencoder_psr, open_network().network
    print("loaded", *sorted(heavy & set(sys.modules)))
    import monai, pandas, scipy.stats  # there for whoever does use them
    print(len(pandas.DataFrame([1])), scipy.stats.norm.cdf(0), monai.__spec__.loader is monai.__loader__)
    print(any(type(finder).__module__ == lean.__name__ for finder in sys.meta_path))
cli.run(main)
"""
    assert python(code) == ["loaded", "1", "0.5", "True", "False"]


def test_a_monai_that_cannot_do_without_is_loaded_whole(tmp_path):
    (tmp_path / "monai").mkdir()
    (tmp_path / "monai" / "__init__.py").write_text("from . import part\n")
    (tmp_path / "monai" / "part.py").write_text("import scipy.stats\nhow = scipy.stats.norm.cdf(0)\n")
    code = "from DEMISTCore import lean; lean.install(); import monai.part; print(monai.part.how)"
    assert python(code, tmp_path) == ["0.5"]


def test_other_threads_miss_nothing_meanwhile(tmp_path):
    look = """
import threading
found = []
def look():
    try:
        import h5py
        found.append("there")
    except ImportError:
        found.append("missing")
"""
    (tmp_path / "monai").mkdir()
    (tmp_path / "monai" / "__init__.py").write_text(
        f"{look}\nlook()\nother = threading.Thread(target=look)\nother.start(), other.join()\n"
    )
    code = "from DEMISTCore import lean; lean.install(); import monai; print(*monai.found)"
    assert python(code, tmp_path) == ["missing", "there"]


def test_shapes_alone_are_those_of_the_network():
    for name in ("tiny", "tiny_mean"):
        config = PRESETS[name]
        with shapes_only():
            laid_out = {**build_demist(config).state_dict(), **build_autoencoder(config.psr).state_dict()}
        with torch.random.fork_rng():
            built = {**build_demist(config).state_dict(), **build_autoencoder(config.psr).state_dict()}
        assert all(tensor.is_meta for tensor in laid_out.values())
        assert {key: tensor.shape for key, tensor in laid_out.items()} == {
            key: tensor.shape for key, tensor in built.items()
        }


def test_the_template_is_found_without_loading_what_it_comes_with(monkeypatch):
    pytest.importorskip("nilearn")
    code = """
import sys
from DEMISTCore.simulate import anatomy
print(anatomy._in_nilearn("gm").is_file(), "nilearn" in sys.modules)
"""
    assert python(code) == ["True", "False"]
    assert file_of_package("nilearn", "no", "such.file") is None
    assert file_of_package("no_such_package", "file") is None
    monkeypatch.setattr(anatomy, "file_of_package", lambda *where: None)
    with pytest.raises(InputError, match=r"demist\[simulate\]"):
        anatomy._in_nilearn("gm")
