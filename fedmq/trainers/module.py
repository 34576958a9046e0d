"""A user's module with a model and the data, as a configuration names it: no framework is imported here.

All that fedmq asks of a user is one Python module with two functions::

    def model():  # a compiled Keras model; for the NumPy engine, an `Mlp`
        ...


    def data(device):  # the examples of the device of that name
        return x, y

`data` may return

- ``(x, y)``, or ``(x, y, sample_weights)``: arrays, or for a model with several inputs a dictionary of arrays;
- ``((x, y), (x_test, y_test))``: two tuples, the second one held out and only ever evaluated on;
- an object with the attributes `x`, `y` and, for held-out examples, `x_test` and `y_test`;
- for Keras, a `tf.data.Dataset` of batches in place of each ``(x, y)``.

Inputs and outputs that are tuples of arrays are told from held-out data only as attributes of an object.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmq.errors import ConfigError, MisuseError
from fedmq.trainers.settings import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class Supply:
    """What a user's `data` gave: examples to train on and, where there are any, to hold out."""

    train: object
    held_out: object | None = None


@dataclass(frozen=True, slots=True)
class UserModule:
    """A loaded user module; `name` is what the configuration calls it."""

    name: str
    model: Callable[[], object]
    _data: Callable[[str], object]

    def data(self, device: str) -> Supply:
        """Return the examples of `device`. Raises ConfigError when the user's function gives nothing usable."""
        given = self._data(device)
        if given is None:
            raise ConfigError(f"data({device!r}) in {self.name} returned nothing: return (x, y)")
        return _supply(given)


def load_user_module(name: str, needs: Sequence[str] = ("model", "data")) -> UserModule:
    """Load a module by dotted name, or by path where it ends in ``.py``.

    A path is loaded once per process. `needs` are the functions that are going to be called. Raises ConfigError when
    there is no such module, it does not import, or one of those is missing; what the user's own code raises is chained
    to the error.
    """
    module = _by_path(Path(name)) if name.endswith(".py") else _by_name(name)
    model, data = (
        _function(module, name, each) if each in needs else _uncalled for each in ("model", "data")
    )
    return UserModule(name, model, data)


def _by_path(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path} to take the model and data from: check the path")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"fedmq_user_{path.stem}_{digest}"
    return sys.modules.get(name) or _execute(name, path)


def _execute(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(
            f"{path} cannot be loaded as a Python module: give it a plain name that ends in .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"{path} does not import ({first_line(error)}): run it with python to see where"
        ) from error
    return module


def _by_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"module {name!r} does not import ({first_line(error)}): install it, or give the path of its file"
        ) from error


def _function(module: ModuleType, name: str, wanted: str) -> Callable[..., object]:
    function = getattr(module, wanted, None)
    if callable(function):
        return function  # type: ignore[no-any-return]  # what a user's module holds has no type here
    own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    raise ConfigError(f"{name} has no function {wanted}(): {suggest(wanted, own)}")


def _uncalled(*_: object) -> object:
    raise MisuseError("this module was loaded without a need for that function: name it in `needs`")


def _supply(given: object) -> Supply:
    if hasattr(given, "x") and hasattr(given, "y"):
        test = getattr(given, "x_test", None)
        return Supply((given.x, given.y), None if test is None else (test, getattr(given, "y_test", None)))
    if isinstance(given, tuple) and len(given) == 2 and _whole_share(given[0]):  # noqa: PLR2004  # train and test
        return Supply(*given)
    return Supply(given)


def _whole_share(part: object) -> bool:
    """Tell (x, y) or a tf.data.Dataset from an array."""
    return isinstance(part, tuple) or hasattr(part, "element_spec")


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says, to quote it in a sentence."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.:')}" if text else type(error).__name__
