"""How the launcher ends after a signal: as rank 0 did, and not as if all had gone well."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amdim.engine.distributed import launcher

ROOT = Path(__file__).parent.parent.parent
RANK = """
import signal, sys, time
from amdim.engine.distributed import launcher
def stop(*_):
    if sys.argv[1] != "fails":
        launcher.report(int(sys.argv[1]))
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
LAUNCHER = """
import sys
from amdim.engine.distributed import launcher
sys.exit(launcher.run_ranks(1, sys.argv[2:], 0, saves=sys.argv[1] == "saves"))
"""


@pytest.mark.parametrize("name", launcher.COUNTS)
def test_who_started_it_again(monkeypatch, name):
    monkeypatch.setenv(name, "0")
    assert not launcher.restarted()
    monkeypatch.setenv(name, "2")
    assert launcher.restarted()


@pytest.mark.parametrize(
    ("kind", "told", "code"),
    [("saves", "143", 143), ("saves", "0", 0), ("saves", "1", 1), ("saves", "fails", 143), ("probes", "fails", 143)],
)
def test_a_signal_ends_the_launcher_as_rank_0_ended(tmp_path, kind, told, code):
    """143 is stopped and saved; 0 was done already; 1 is a save that failed. Of one that fell silent the launcher says so, but
    not in an evaluation, which has nothing to save.
    """
    (tmp_path / "rank.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r}){RANK}")
    command = [sys.executable, "-c", LAUNCHER, kind, str(tmp_path / "rank.py"), told]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    announced, *more = errors.splitlines() or [""]
    assert announced == ("SIGTERM: finishing this step and saving; Ctrl-C ends it at once" if kind == "saves" else "")
    lost = f"warning: the ranks ended before they had saved; {launcher.GOES_ON}, if there is one"
    assert more == ([lost] if (kind, told) == ("saves", "fails") else [])
    assert process.returncode == code
