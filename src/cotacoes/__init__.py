"""cotacoes: a crypto price feed that you run yourself and can pull the plug on."""

import importlib
from collections.abc import Callable, Mapping

__version__ = "0.2.0"


def load_when_used(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package that imports each of its public names, given with its module, at its first use.

    A command that asks one question then loads a part of the package, and starts in half the time.
    """

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return load
