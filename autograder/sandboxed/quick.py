"""Why does PyTorch take so long to start? It gets ready for much that no submission uses.

`import_torch` is for a process that runs submissions, before anything else imports torch; `skip_compiler` and
`forget_seeds` are for the judge too. Where another PyTorch does something differently, that is only slower.
"""

import contextlib
import functools
import gc
import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

REST = "torch._meta_registrations"  # imports `_decomp`, `_prims` and `_refs`
ATTRIBUTES = ("_meta_registrations", "_decomp", "_prims", "_refs")  # of torch, which then are not there unasked
# What optimizers and checkpoints import when they are first used: further parts that do without the rest.
USUAL = ("torch.profiler._cupti_monitor", "torch.utils.serialization.config")
# How a file of Python names the device that has no data, or makes something on it without naming it.
NAMES_META = re.compile(rb"""["']meta\b|skip_init""")


def import_torch() -> None:
    """Import torch without what only its compilers and the device `meta` need, a quarter of the whole.

    The garbage collector, which would look through everything again and again meanwhile, is off afterwards.
    """
    gc.disable()
    if "torch" in sys.modules:
        return
    sys.modules[REST] = _Absent(REST)
    torch = importlib.import_module("torch")
    if not isinstance(sys.modules.get(REST), _Absent):
        return
    del sys.modules[REST]
    with contextlib.suppress(AttributeError):
        delattr(torch, REST.rpartition(".")[2])
    for name in USUAL:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.meta_path.insert(0, _Rest())
    with contextlib.suppress(AttributeError):
        torch._lazy_modules.update(ATTRIBUTES)


class _Absent(ModuleType):
    """Stands in for a module of which torch needs nothing, and is replaced as soon as it needs something."""

    def __getattr__(self, name: str) -> Any:
        """Import the module."""
        if name.startswith("__"):  # asked of every module by those that look for one
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _Rest(MetaPathFinder, Loader):
    """Imports what was put off before any further part of torch: in another order their imports go in circles."""

    def __init__(self) -> None:
        self._has_begun = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Say that this is the importer of the first further part."""
        if self._has_begun or not name.startswith("torch.") or PathFinder.find_spec(name, path) is None:
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, imported in the usual way after what was put off."""
        self._has_begun = True
        import_rest()
        module = importlib.import_module(spec.name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back the specification that it was imported by."""
        assert module.__spec__
        module.__spec__ = module.__spec__.loader_state


def import_rest() -> None:
    """Import what `import_torch` has put off."""
    with contextlib.suppress(ImportError):
        importlib.import_module(REST)


def needs_rest(files: Iterable[Path]) -> bool:
    """Return whether one of these files of Python may use the device `meta`, of which nobody has to import anything."""
    return any(NAMES_META.search(file.read_bytes()) for file in files)


@functools.cache
def skip_compiler() -> None:
    """Let the functions that PyTorch keeps from its compiler be called without importing `torch._dynamo`.

    The first optimizer would take five seconds, only for PyTorch to say what its compiler must leave out. The functions
    are those that one of its private wrappers is around; `torch.compile` works as before.
    """
    import torch

    wrapper = getattr(torch.optim.Optimizer.add_param_group, "__code__", None)
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__code__ is wrapper:
            variables = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
            for name, cell in variables:
                if name == "fn" and not hasattr(cell.cell_contents, "__dynamo_disable"):
                    setattr(cell.cell_contents, "__dynamo_disable", cell.cell_contents)


def forget_seeds() -> None:
    """Let `torch.manual_seed` pass over the kinds of devices that this PyTorch was not built for.

    It would keep the seed for each of them, with a traceback of who gave it, for the day on which one turns up.
    """
    import torch

    for kind in ("cuda", "xpu", "mtia"):
        device = getattr(torch, kind, None)
        is_built = getattr(device, "_is_compiled", None)
        if device and is_built and not is_built():
            device.manual_seed_all = _forget


def _forget(seed: int) -> None:
    """Do nothing with a seed."""
