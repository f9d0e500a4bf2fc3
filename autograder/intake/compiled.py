"""What does Python make of a submission's files? Compiled once in the limited process, and not anew in each check.

Nothing of it runs, and nobody but the sandbox reads what comes out.
"""

import base64
import importlib.util
import json
import marshal
import warnings
from collections.abc import Collection, Mapping
from types import CodeType

MAX_BYTES = 1 << 20  # of all of them together; the sandbox compiles the others, as it would without a cache


def as_cache(code: CodeType) -> bytes:
    """Return a cache file that Python takes as it is, whatever date and size the source has."""
    unchecked = (1).to_bytes(4, "little")  # PEP 552
    return importlib.util.MAGIC_NUMBER + unchecked + bytes(8) + marshal.dumps(code)


def compile_files(files: Mapping[str, bytes], given: Collection[str]) -> str:
    """Return the caches of a submission's modules, other than the `given` ones, as a line of JSON.

    A file without one is compiled in the sandbox: one with an error or a warning, so that it is told there.
    """
    caches: dict[str, str] = {}
    left = MAX_BYTES
    for name, source in files.items():
        if not name.endswith(".py") or name in given:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                cache = as_cache(compile(source, name, "exec", dont_inherit=True))
        except Exception:
            continue
        if len(cache) <= left:
            left -= len(cache)
            caches[name] = base64.b64encode(cache).decode()
    return json.dumps(caches)


def read_caches(line: bytes, files: Collection[str]) -> dict[str, bytes]:
    """Return the caches of these files from a line of `compile_files`; none if it makes no sense."""
    try:
        return {
            name: base64.b64decode(cache, validate=True) for name, cache in json.loads(line).items() if name in files
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
