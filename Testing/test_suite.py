"""How the suite itself runs: side by side, no file in two processes, dear files first."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import pytest

HERE = Path(__file__).parent


def test_a_file_is_one_process_s_work_and_dear_ones_start_first(tmp_path):
    pytest.importorskip("xdist")
    shutil.copy(HERE / "conftest.py", tmp_path)
    names = ["test_a.py", "test_b.py", conftest.DEAR[1], conftest.DEAR[0]]
    content = "import pytest\n@pytest.mark.parametrize('i', range(6))\ndef test(i):\n    pass\n"
    for name in names:
        (tmp_path / name).write_text(content)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    words = [sys.executable, "-m", "pytest", "-n", "2", "-vv", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"\[(gw\d)\].* PASSED (\w+\.py)::", done.stdout)
    assert len(ran) == 24
    by_file = {name: {worker for worker, file in ran if file == name} for name in names}
    assert {name: len(workers) for name, workers in by_file.items()} == dict.fromkeys(names, 1)
    assert by_file[conftest.DEAR[0]] != by_file[conftest.DEAR[1]]
    first = {worker: next(file for who, file in ran if who == worker) for worker in ("gw0", "gw1")}
    assert set(first.values()) == set(conftest.DEAR[:2])


def test_dear_files_are_there():
    assert [name for name in conftest.DEAR if not (HERE / name).is_file()] == []
