"""What numba makes is kept where it can be, and nothing fails where it cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import amdim.pipeline.augment.jit as jit_module
from amdim.pipeline.augment import color_jitter

LOOP = """
from jit import jit

@jit
def double(x):
    return 2 * x

print(double(21), double.stats.cache_path is not None)
"""

FULL_DISK = """
import numba.core.caching

def save(*_):
    raise OSError(28, "No space left on device")

numba.core.caching.IndexDataCacheFile.save = save
"""


def run(folder, loop=LOOP, **places):
    """What it computes, and whether that is kept."""
    shutil.copy(jit_module.__file__, folder)
    (folder / "loop.py").write_text(loop)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")} | places
    command = [sys.executable, "-c", "import loop"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_is_kept_beside_the_source():
    assert Path(color_jitter.colour.stats.cache_path).is_dir()


def test_works_where_nothing_can_be_kept(tmp_path):
    """A file stands where each directory would be made, which stops the superuser, too."""
    (tmp_path / "__pycache__").touch()
    assert run(tmp_path, XDG_CACHE_HOME="/dev/null/cache", HOME="/dev/null") == ["42", "False"]


def test_works_where_the_disk_is_full(tmp_path):
    """numba looks whether the directory can be written before it writes to it."""
    assert run(tmp_path, FULL_DISK + LOOP) == ["42", "True"]
    assert not list(tmp_path.glob("__pycache__/*.nb*"))


def test_no_name_of_another_module_is_frozen():
    """numba looks for changes in the function's own file only: what is compiled must call nothing that is compiled elsewhere."""
    import ast

    folder = Path(jit_module.__file__).parent
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        imported = {alias.asname or alias.name for node in imports for alias in node.names}
        for function in functions:
            if any(ast.unparse(each) == "compiled" for each in function.decorator_list):
                used = {node.id for part in function.body for node in ast.walk(part) if isinstance(node, ast.Name)}
                assert not used & imported, f"{path.name}: {function.name} uses {used & imported}"
