"""The Python of config/samples/drift for the host, with the packages of its image."""

from .paths import BIN, CHECKOUT
from .python import pinned, virtual_environment

REQUIREMENTS = CHECKOUT / "config" / "samples" / "drift" / "requirements.txt"


def link() -> None:
    """By a script, since a symlinked Python forgets its packages."""
    interpreter = virtual_environment("drift", pinned(REQUIREMENTS))
    script = BIN / "python-drift"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.unlink(missing_ok=True)
    script.write_text(f'#!/bin/sh\nexec {interpreter} "$@"\n')
    script.chmod(0o755)
