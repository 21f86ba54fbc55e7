"""Where Python looks for modules: what lies in the working directory must not take the place of what is installed."""

# Before the path is put right, nothing may be imported but what Python itself has loaded by then.
import os
import sys

#: The folder that this package is in.
PACKAGE = os.path.dirname(os.path.abspath(__file__))


def import_path() -> list[str]:
    """``sys.path`` with the working directory at its end, and with this very package as the first of its name.

    Python, ``PYTHONPATH`` with an empty entry and Jupyter put the working directory first, whatever is in it. At the
    end, it still has a plug-in's own modules. Where ``PYTHONPATH`` names it with its whole path it stays in its place.
    """
    here = _working_directory()
    chosen = {_real(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)}
    path: list[str] = []
    late: list[str] = []
    for entry in sys.path:
        implied = not entry or (_real(entry) == here and here not in chosen)
        (late if implied else path).append(os.path.abspath(entry or here or os.sep))
    path += late if here else []
    parent = os.path.dirname(PACKAGE)
    first = next((place for place, entry in enumerate(path) if _holds_package(entry)), len(path))
    return list(dict.fromkeys([*path[:first], parent, *path[first:]]))


def is_command() -> bool:
    """Whether this process is ``roadmap`` or ``python -m roadmap``, and not another program that imports it."""
    name = sys.argv[0] if sys.argv else ""
    if name == "-m":  # Python has not found the module yet
        name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    return os.path.splitext(os.path.basename(name))[0] == os.path.basename(PACKAGE)


def is_installed(package: str) -> bool:
    """Whether a package is there to import; a mere folder of its name, an empty package to Python, is not."""
    from importlib.util import find_spec  # only where it is asked: see above

    found = find_spec(package)
    return found is not None and found.origin is not None


def _holds_package(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, os.path.basename(PACKAGE), "__init__.py"))


def _working_directory() -> str:
    """The working directory; nothing where it has been removed."""
    try:
        return _real(os.getcwd())
    except OSError:
        return ""


def _real(path: str) -> str:
    return os.path.realpath(path)
