"""The servers that Laurel is tested with. Starts none."""

import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from laurel_rig import python, servers
from laurel_rig.children import child
from laurel_rig.images import MLFLOW_VERSION


class Servers(unittest.TestCase):
    def test_every_release_is_pinned(self) -> None:
        for server in servers.SERVERS.values():
            newest = server.release == MLFLOW_VERSION
            file = python.MLFLOW_REQUIREMENTS if newest else servers.REQUIREMENTS / f"mlflow-{server.release}.txt"
            lines = python.pinned(file)
            self.assertIn(f"mlflow=={server.release}", lines)
            self.assertEqual([line for line in lines if "==" not in line], [])


class Children(unittest.TestCase):
    def start(self, script: str, folder: Path) -> int:
        """Starts a child that starts another one, and returns the pid of that."""
        pid = folder / "pid"
        self.context = child(["sh", "-c", f"sh -c 'echo $$ >{pid}; {script}' & wait"], folder / "log")
        self.context.__enter__()
        return self.number_in(pid)

    def number_in(self, file: Path) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if file.exists() and file.read_text().strip():
                return int(file.read_text())
            time.sleep(0.01)
        raise AssertionError(f"{file} stays empty")

    def assert_gone(self, pid: int) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
            time.sleep(0.02)
        raise AssertionError(f"{pid} still runs")

    def test_all_of_a_child_ends_with_the_block(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pid = self.start("sleep 1000", Path(folder))
            self.context.__exit__(None, None, None)
            self.assert_gone(pid)

    def test_all_of_a_child_ends_with_its_parent_even_if_that_is_killed(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pid"
            script = (
                "import sys, time; from pathlib import Path; from laurel_rig.children import child\n"
                f"with child(['sh', '-c', 'echo $$ >{file}; sleep 1000'], Path({folder!r}) / 'log'): time.sleep(1000)"
            )
            rig = Path(__file__).resolve().parent.parent
            parent = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(rig)})
            pid = self.number_in(file)
            parent.kill()
            parent.wait()
            self.assert_gone(pid)


if __name__ == "__main__":
    unittest.main()
