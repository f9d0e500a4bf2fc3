"""How is a page rendered? Everything is escaped, and a name that nobody gave is an error."""

from pathlib import Path
from typing import TYPE_CHECKING

from errors import MissingDependency

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(folder: Path, feature: str) -> "Environment":
    """Return the environment of the templates in a folder. Raises MissingDependency, for `feature`, without Jinja2."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependency(feature, "jinja2") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
