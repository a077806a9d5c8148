"""Two checkouts on one machine. Needs neither root nor a tier: `python3 -m unittest discover tests/rig/tests`."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from laurel_rig import checkouts
from laurel_rig.checkouts import Node
from laurel_rig.shell import RigError
from laurel_rig.tier import API, FULL


class Checkouts(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve()
        self.proc = self.root / "proc"
        self.proc.mkdir()
        self.here, self.there = self.checkout("here"), self.checkout("there")

    def checkout(self, name: str) -> Path:
        rig = self.root / name / "tests" / "rig"
        rig.mkdir(parents=True)
        (rig / "rig").touch()
        return self.root / name

    def process(self, pid: int, *words: str, cwd: Path | str) -> None:
        folder = self.proc / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_bytes("".join(word + "\0" for word in words).encode())
        (folder / "cwd").symlink_to(cwd)

    def node(self, pid: int, tier: str, checkout: Path) -> None:
        self.process(pid, "python3", "-m", "laurel_rig.node", tier, cwd=checkout / "tests" / "rig")

    def test_nodes_are_found_by_their_command_line_and_other_processes_are_not(self) -> None:
        self.node(20, "full", self.there)
        self.process(21, "unshare", "--fork", "python3", "-m", "laurel_rig.node", "api", cwd=self.here / "tests/rig")
        self.process(22, "grep", "laurel_rig.node full", cwd=self.there / "tests/rig")
        self.process(23, "python3", "-m", "laurel_rig.node", cwd=self.there / "tests/rig")  # no tier
        (self.proc / "24").mkdir()  # ended while it was looked at
        (self.proc / "uptime").touch()
        found = checkouts.running(self.proc)
        self.assertEqual(found, [Node(20, "full", self.there), Node(21, "api", self.here)])

    def test_a_tier_that_nobody_or_this_checkout_has_is_free(self) -> None:
        self.node(20, "full", self.here)
        self.node(21, "api", self.there)
        nodes = checkouts.running(self.proc)
        checkouts.require_free(FULL, nodes, self.here)
        checkouts.require_free(FULL, [], self.here)
        self.assertEqual(checkouts.ours(FULL, nodes, self.here), [Node(20, "full", self.here)])
        self.assertEqual(checkouts.ours(API, nodes, self.here), [])

    def test_a_tier_of_another_checkout_is_refused_with_its_name_and_the_way_down(self) -> None:
        self.node(20, "full", self.there)
        nodes = checkouts.running(self.proc)
        with self.assertRaises(RigError) as refused:
            checkouts.require_free(FULL, nodes, self.here)
        self.assertIn(f"{self.there} (process 20)", str(refused.exception))
        self.assertIn(f"{self.there}/tests/rig/rig down full", str(refused.exception))
        checkouts.require_free(API, nodes, self.here)

    def test_a_tier_whose_checkout_was_deleted_can_still_be_ended(self) -> None:
        gone = self.root / "gone"
        command = ("python3", "-m", "laurel_rig.node", "api")
        self.process(30, *command, cwd=f"{gone}/tests/rig (deleted)")
        nodes = checkouts.running(self.proc)
        self.assertEqual(nodes, [Node(30, "api", gone)])
        with self.assertRaises(RigError) as refused:
            checkouts.require_free(API, nodes, self.here)
        self.assertIn("kill -KILL 30", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
