"""Which of a Keras model's variables are in the layout, and under which names; the same on every backend of Keras."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from fedmq.errors import ConfigError
from fedmq.trainers.settings import suggest
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import keras

_NUMBER: Final = re.compile(r"_\d+$")
_SEED_STATE: Final = "seed_generator_state"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's variables, sorted by what becomes of them in a round."""

    layout: Layout
    shared: tuple[keras.Variable, ...]
    personal: tuple[keras.Variable, ...]
    seeds: tuple[keras.Variable, ...]
    """States of seed generators: set from the round's seed."""
    other: tuple[keras.Variable, ...]
    """Not floating-point: set back at the start of a round."""


def sort_weights(model: keras.Model, personal: Sequence[str]) -> Weights:
    """Return a built model's variables; those in layers that match a pattern in `personal` stay on their device.

    A pattern is a shell's (``head``, ``batch_normalization*``), matched against layer names as the layout shows them,
    and against paths of nested layers (``encoder/block_1``). Raises ConfigError when a pattern matches no layer, or
    nothing is left to share.
    """
    weights = [weight for weight in model.weights if is_float(weight)]
    layout = _layout(model, weights, personal)
    pairs = list(zip(weights, layout.variables, strict=True))
    own = {id(weight) for weight in weights}
    rest = [variable for variable in model.variables if id(variable) not in own]
    return Weights(
        layout=layout,
        shared=tuple(weight for weight, variable in pairs if variable.scope == "shared"),
        personal=tuple(weight for weight, variable in pairs if variable.scope == "personal"),
        seeds=tuple(variable for variable in rest if variable.name == _SEED_STATE),
        other=tuple(variable for variable in rest if variable.name != _SEED_STATE),
    )


def is_float(variable: keras.Variable) -> bool:
    """Tell floating-point variables (``bfloat16`` is one) from counters and states."""
    return "float" in str(variable.dtype)


def _layout(model: keras.Model, weights: Sequence[keras.Variable], personal: Sequence[str]) -> Layout:
    names = _stable_names(model, [weight.path for weight in weights])
    _check_patterns(personal, names)
    trainable = {id(weight) for weight in model.trainable_weights}
    layout = Layout(
        tuple(
            Variable(
                name=name,
                shape=tuple(weight.shape),
                kind="trainable" if id(weight) in trainable else "statistic",
                scope="personal" if _matches(name, personal) else "shared",
            )
            for name, weight in zip(names, weights, strict=True)
        )
    )
    if not layout.size:
        raise ConfigError(
            "the model has no floating-point weights to share: give it layers, and not all of them personal"
        )
    return layout


def _stable_names(model: keras.Model, paths: Sequence[str]) -> list[str]:
    """Return a unique name per path, the same in every process that builds the model.

    Keras numbers unnamed layers through the whole life of a process (``dense_3``). Here they are numbered by kind, in
    order of appearance in the model, as in a process that builds nothing else. The model's own name is left out, so
    that one network has one layout, whether Sequential or functional.
    """
    automatic = {layer.name for layer in model._flatten_layers() if _automatic(layer)}  # noqa: SLF001  # no public way
    numbering = _Numbering(automatic)
    return list(_unique(numbering.path(path.removeprefix(f"{model.name}/")) for path in paths))


def _automatic(layer: keras.Layer) -> bool:
    """Tell a name made from the layer's class (``dense_3``, wrapped ``forward_lstm_1``) from one that a user gave."""
    kind = _NUMBER.sub("", layer.name).replace("_", "")
    return kind.endswith(type(layer).__name__.replace("_", "").lower())


class _Numbering:
    """New numbers for automatic names."""

    def __init__(self, automatic: Iterable[str]) -> None:
        self._automatic = frozenset(automatic)
        self._new: dict[str, str] = {}
        self._used: dict[str, int] = {}

    def path(self, path: str) -> str:
        *layers, variable = path.split("/")
        automatic = _NUMBER.sub("", variable) == "variable"  # what Keras calls a variable without a name
        return "/".join([*map(self._layer, layers), self._renumber(variable) if automatic else variable])

    def _layer(self, name: str) -> str:
        return self._renumber(name) if name in self._automatic else name

    def _renumber(self, name: str) -> str:
        if name not in self._new:
            kind = _NUMBER.sub("", name)
            number = self._used.get(kind, 0)
            self._used[kind] = number + 1
            self._new[name] = f"{kind}_{number}" if number else kind
        return self._new[name]


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Yield the names, the second and later ones of a kind marked ``~2``, ``~3`` and so on."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}~{seen[name]}" if seen[name] > 1 else name


def _check_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    known = {candidate for name in names for candidate in _layer_names(name)}
    for pattern in patterns:
        if not any(fnmatchcase(candidate, pattern) for candidate in known):
            raise ConfigError(f"no layer with weights is called {pattern!r}: {suggest(pattern, known)}")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(candidate, pattern) for candidate in _layer_names(name) for pattern in patterns)


def _layer_names(name: str) -> set[str]:
    """Return the names and paths of the layers that a variable lies in."""
    layers = name.split("/")[:-1]
    return {*layers, *("/".join(layers[:depth]) for depth in range(1, len(layers) + 1))}
