"""What a misconception is, and how to try it on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest import mock

Variant = Callable[..., Any]
AnyVariant = TypeVar("AnyVariant", bound=Variant)


@dataclass(frozen=True)
class Misconception:
    """A mistake that students make in one solution region.

    `sentence` completes "this equals ..."; `patches` are the wrong variant, by the name of what it replaces
    (such as `llama.RMSNorm._norm`).
    """

    name: str
    region: str
    sentence: str
    patches: Mapping[str, Variant]


@contextmanager
def applied(misconception: Misconception) -> Iterator[None]:
    """Put the wrong variant in the place of the right code, as long as the block runs."""
    with ExitStack() as stack:
        for target, replacement in misconception.patches.items():
            stack.enter_context(mock.patch(target, replacement))
        yield


class Catalogue:
    """The misconceptions of one region, collected by a decorator."""

    def __init__(self, region: str, *targets: str) -> None:
        """Name the region, and every name under which the code that is replaced is looked up."""
        self.region = region
        self.targets = targets
        self.entries: list[Misconception] = []

    def add(self, sentence: str, wrap: Callable[[Any], Variant] | None = None) -> Callable[[AnyVariant], AnyVariant]:
        """Return a decorator that adds a variant; `wrap` makes a whole replacement of one that is only a part."""

        def collect(variant: AnyVariant) -> AnyVariant:
            replacement = variant if wrap is None else wrap(variant)
            patches = dict.fromkeys(self.targets, replacement)
            name = f"{self.region}.{variant.__name__.removeprefix('_')}"
            self.entries.append(Misconception(name, self.region, sentence, patches))
            return variant

        return collect
