"""Where the rig reads its inputs and keeps what it makes."""

import os
from pathlib import Path

RIG = Path(__file__).resolve().parent.parent
CHECKOUT = RIG.parent.parent
STATE = CHECKOUT / ".cluster"
BIN = STATE / "bin"


def cache_dir() -> Path:
    """Outside the checkout, so that slow builds are paid once per machine."""
    if explicit := os.environ.get("LAUREL_CACHE"):
        return Path(explicit).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "laurel"
