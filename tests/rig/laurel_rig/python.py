"""Python for the images and for the host: Debian's interpreter, and pinned packages beside it."""

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

from . import debian
from .paths import BIN, RIG, cache_dir
from .shell import RigError, discard, fingerprint, link, locked, published, run, say

RELEASE = "bookworm"
VERSION = "3.11"  # RELEASE's Python
SITE = Path(f"usr/local/lib/python{VERSION}/dist-packages")  # where RELEASE's Python looks by itself
SCRIPTS = Path("usr/local/bin")
NOBODY_IN_PARTICULAR = "nonroot:x:65532:65532:nonroot:/tmp:/usr/sbin/nologin\n"

SERVING_REQUIREMENTS = RIG / "images" / "serving" / "requirements.txt"
MLFLOW_REQUIREMENTS = RIG / "images" / "mlflow" / "requirements.txt"
HOST_REQUIREMENTS = RIG / "servers" / "newest.txt"

# Layers carry no times, so compiled files must not be checked against their sources' times:
# Python would find every one of them stale, and in a read-only image compile anew at each start.
COMPILE = ["python3", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"]


def base_folder() -> Path:
    """A minimal Debian with Python, kept as a folder: the layers above are compiled with it."""
    folder = cache_dir() / "rootfs" / f"python-{fingerprint(Path(__file__))}"
    if not folder.exists():
        debian.ensure(debian.ROOTFS)
        with locked(cache_dir() / "rootfs.lock"):
            log = cache_dir() / "logs" / "debootstrap.log"
            say(f"making a minimal Debian with Python: a minute, once per machine (log: {log})")
            with published(folder) as root:
                run(["debootstrap", "--variant=minbase", "--include=python3", RELEASE, root], log=log)
                strip(root)
    return folder


def strip(root: Path) -> None:
    for rubbish in ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man",
                    "usr/share/locale", "etc/hostname", "etc/resolv.conf", "dev"):  # fmt: skip
        discard(root / rubbish)
    for folder in ("var/log", "dev"):
        (root / folder).mkdir()
    with open(root / "etc/passwd", "a") as passwd, open(root / "etc/group", "a") as group:
        passwd.write(NOBODY_IN_PARTICULAR)
        group.write("nonroot:x:65532:\n")
    run(["chroot", root, *COMPILE, f"/usr/lib/python{VERSION}", "/usr/lib/python3"])


def install_packages(requirements: list[str], root: Path) -> None:
    """Wheels for the images' Python, whatever the host's; nothing of them is run here."""
    log = cache_dir() / "logs" / "packages.log"
    say(f"installing {len(requirements)} Python packages (log: {log})")
    site, scripts = root / SITE, root / SCRIPTS
    site.parent.mkdir(parents=True)
    glibc = (word for minor in range(17, 37) for word in ("--platform", f"manylinux_2_{minor}_x86_64"))
    run([pip_python(), "-m", "pip", "install", "--target", site, "--no-deps", "--no-compile", "--only-binary=:all:",
         "--implementation", "cp", "--python-version", VERSION, *glibc, *requirements], log=log)  # fmt: skip
    if (site / "bin").exists():
        shutil.move(site / "bin", scripts)
        for script in scripts.iterdir():
            use_the_images_python(script)
    compile_packages(site)


def use_the_images_python(script: Path) -> None:
    """pip names its own interpreter in the first line."""
    first, newline, rest = script.read_bytes().partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        script.write_bytes(b"#!/usr/bin/python3" + newline + rest)


def compile_packages(site: Path) -> None:
    """By the images' Python, which sees the packages where the image will have them."""
    base = base_folder()
    place = base / SITE
    place.mkdir(parents=True, exist_ok=True)
    in_private = 'mount --bind "$1" "$2" && shift 2 && exec chroot "$@"'
    run(["unshare", "--mount", "sh", "-c", in_private, "sh", site, place, base, *COMPILE, f"/{SITE}"],
        log=cache_dir() / "logs" / "compile.log")  # fmt: skip


def pinned(requirements: Path) -> list[str]:
    lines = (line.strip() for line in requirements.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def only_in_mlflow() -> list[str]:
    """What the MLflow image has on top of the serving image."""
    serving, mlflow = pinned(SERVING_REQUIREMENTS), pinned(MLFLOW_REQUIREMENTS)
    if stray := set(serving) - set(mlflow):
        raise RigError(f"{SERVING_REQUIREMENTS} has lines that {MLFLOW_REQUIREMENTS} lacks: {', '.join(sorted(stray))}")
    return [line for line in mlflow if line not in serving]


def pip_python() -> Path:
    """The interpreter of an empty virtual environment: it has a pip, which the host's may not."""
    return virtual_environment("pip", [])


def mlflow_python() -> Path:
    return virtual_environment("mlflow", [*pinned(MLFLOW_REQUIREMENTS), *pinned(HOST_REQUIREMENTS)])


def virtual_environment(name: str, packages: list[str]) -> Path:
    """Made in its final place, because its scripts name their interpreter by its full path."""
    if not importlib.util.find_spec("ensurepip"):
        raise RigError("this Python cannot make virtual environments. On Debian, as root: apt-get install python3-venv")
    folder = cache_dir() / "venv" / f"{name}-{fingerprint(sys.executable, platform.python_version(), *packages)}"
    finished = folder / "finished"
    with locked(cache_dir() / f"venv-{name}.lock"):
        if not finished.exists():
            log = cache_dir() / "logs" / f"venv-{name}.log"
            say(f"making a virtual environment for {name} (log: {log})")
            discard(folder)
            run([sys.executable, "-m", "venv", folder], log=log)
            if packages:
                run([folder / "bin" / "python", "-m", "pip", "install", "--no-deps", *packages], log=log)
            finished.touch()
    return folder / "bin" / "python"


def link_mlflow() -> None:
    """`mlflow`, and its Python as `python-mlflow`: by a script, since a symlinked Python forgets its packages."""
    interpreter = mlflow_python()
    link(BIN / "mlflow", interpreter.parent / "mlflow")
    script = BIN / "python-mlflow"
    script.unlink(missing_ok=True)
    script.write_text(f'#!/bin/sh\nexec {interpreter} "$@"\n')
    script.chmod(0o755)
