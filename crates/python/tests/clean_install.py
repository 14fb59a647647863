"""Installs the wheel into a clean environment of each CPython that is found, and runs the README there.

    python clean_install.py target/python/dist/tidegate-*.whl
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

README = pathlib.Path(__file__).parent.parent / "README.md"
VERSIONS = [f"3.{minor}" for minor in range(10, 15)]

# What the README's first example must have done.
CHECK = """
assert allowed
assert sum(requests.is_allowed("bob") for _ in range(60)) == 20
assert tokens.remaining("alice") == 10_000 - 137
again = RateLimiter(20, 60, shared="limits")
assert again.remaining("alice") == 19
import sys, tidegate
print(f"CPython {sys.version.split()[0]}: tidegate {tidegate.__version__} does what its README says")
"""


def interpreters() -> dict[str, str]:
    """An interpreter of each version, as far as there are any."""
    found = {}
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    for version in VERSIONS:
        named = [shutil.which(f"python{version}")]
        kept = sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))
        for python in [sys.executable, *named, *kept]:
            show = [python, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
            shown = python and subprocess.run(show, capture_output=True, text=True)
            if shown and shown.returncode == 0 and shown.stdout.strip() == version:
                found[version] = python
                break
    return found


def install_and_run(python: str, wheel: str) -> None:
    example = README.read_text().split("```python\n", 1)[1].split("```", 1)[0]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", f"{folder}/venv"], check=True)
        clean = f"{folder}/venv/bin/python"
        install = [clean, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-index", wheel], check=True)
        subprocess.run([clean, "-c", example + CHECK], check=True, cwd=folder)


def main() -> None:
    wheel = os.path.abspath(sys.argv[1])
    found = interpreters()
    for python in found.values():
        install_and_run(python, wheel)
    missing = [version for version in VERSIONS if version not in found]
    if missing:
        print(f"CPython {', '.join(missing)}: not found on this machine, so not tried")


if __name__ == "__main__":
    main()
