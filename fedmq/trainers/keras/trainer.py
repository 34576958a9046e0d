"""`KerasTrainer`, one device's trainer, and `KerasEngine`, the model that trainers of one process share."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from fedmq.device.interface import Trained
from fedmq.errors import ConfigError
from fedmq.trainers.keras.checks import build, check_fit, check_model
from fedmq.trainers.keras.network import Network
from fedmq.trainers.keras.runtime import ENGINE, keras
from fedmq.trainers.keras.sources import MEMORY_BYTES, Data, Source, source
from fedmq.trainers.personal import Personal
from fedmq.trainers.settings import Settings, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting
    from fedmq.trainers.shares import Examples as Given
    from fedmq.vectors import Layout, Vector

_ACCURACIES: Final = frozenset(
    {"acc", "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy"}
)


class KerasEngine:
    """One compiled Keras model, and its training loop, for any number of devices in one process.

    `model` is a compiled model, or a function that returns one. `personal` are patterns of layer names, such as
    ``("head", "batch_normalization*")``, whose weights stay on their device; numbers in names count from the start of
    the model, as in a process that builds nothing else. (Layers that are frozen and the same everywhere, such as a
    pretrained base, may be named here too: that saves sending them.)

    The model is the engine's from now on: its weights are whatever was trained last. Trainers of one engine may be
    called from different threads; they wait for one another.

    Raises ConfigError when the model is not compiled, or is none.
    """

    def __init__(
        self, model: keras.Model | Callable[[], keras.Model], *, personal: Sequence[str] = ()
    ) -> None:
        self._made_from = model  # engines are found again by its id, which is only unique as long as it lives
        self._model = model if isinstance(model, keras.Model) else model()
        self._personal = tuple(personal)
        self._network: Network | None = None
        self.lock: Final = threading.RLock()
        check_model(self._model)

    def trainer(
        self,
        x: Given,
        y: Given | None = None,
        weights: Given | None = None,
        *,
        held_out: Data | None = None,
        keep: Path | None = None,
    ) -> KerasTrainer:
        """Return the trainer of a device with these examples; see `KerasTrainer`."""
        return KerasTrainer(self, (x, y, weights), held_out=held_out, keep=keep)

    def network_for(self, data: Source, what: str) -> Network:
        """Return the model's network, with everything made that training on these examples needs.

        Raises ConfigError when they do not fit the model.
        """
        first = next(data.parts())
        with self.lock:
            build(self._model, first, what)
            if self._network is None:
                self._network = Network(self._model, self._personal)
            check_fit(self._model, self._network, first, what)
            return self._network


class KerasTrainer:
    """Trains a Keras model on one device's examples; see `fedmq.device.interface.Trainer`.

    `model` is a compiled model, a function that returns one, or a `KerasEngine`; trainers that are given the same
    model or function share one engine. `data` is (x, y) or (x, y, sample weights) as arrays, dictionaries or tuples of
    arrays (several inputs), or a `tf.data.Dataset` of batches of these; so is `held_out`. A dataset is held in memory
    where it takes at most `memory_bytes`; a larger one is trained on in the batches and order in which it comes.

    `personal` names layers that stay on the device (see `KerasEngine`), `keep` an ``.npz`` file for their weights, so
    that they survive a restart. With personal layers, a second training begins with other weights than the first.

    Raises ConfigError when the data do not fit the model, in shape or in labels.
    """

    def __init__(  # noqa: PLR0913  # all but the first two are options with names
        self,
        model: keras.Model | Callable[[], keras.Model] | KerasEngine,
        data: Data,
        *,
        held_out: Data | None = None,
        personal: Sequence[str] = (),
        keep: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._engine = model if isinstance(model, KerasEngine) else _shared_engine(model, tuple(personal))
        self._data = source(data, "the training data", memory_bytes)
        self._held_out = None if held_out is None else source(held_out, "the held-out data", memory_bytes)
        self._network = self._engine.network_for(self._data, "the training data")
        if self._held_out is not None:
            self._engine.network_for(self._held_out, "the held-out data")
        self._personal = Personal(self.layout, self._network.initial_personal, keep)

    @property
    def name(self) -> str:
        """Engine and version, such as ``keras 3.15.1 (tensorflow 2.21.0)``."""
        return ENGINE

    @property
    def layout(self) -> Layout:
        """The model's layout; variables of personal layers are in it, and not in the vector."""
        return self._network.layout

    @property
    def examples(self) -> int:
        """How many local examples it trains on."""
        return self._data.rows

    def initial(self) -> Vector:
        """Return the weights that the model had when the engine was made."""
        return self._network.initial.copy()

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Train from `model`; for `settings` see `fedmq.trainers.settings.Settings`.

        A training that diverges returns its vector as it is, and leaves out the figures that are not finite. Raises
        ConfigError for settings that cannot be used, MisuseError when `model` is not of the layout.
        """
        chosen = Settings.parse(settings)
        pulled = chosen.pulled(pull)
        for vector in (model, *([] if pulled.linear is None else [pulled.linear])):
            self.layout.unpack(vector)
        with self._engine.lock:
            metrics = dict(self.evaluate(model))
            stretches = self._data.stretches(chosen, seed)
            outcome = self._network.train(
                model, self._personal.vector, stretches, chosen.learning_rate, pulled, seed
            )
        self._personal.replace(outcome.personal)
        metrics |= {f"train_{name}": value for name, value in plain(outcome.figures).items()}
        steps = self._data.steps(chosen)
        reach = self._network.reach(chosen.learning_rate, steps)
        return Trained(outcome.vector, self.examples, steps, finite(metrics), reach)

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Return the model's loss and compiled metrics on the held-out examples, and their number as ``held_out``.

        Nothing where no examples are held out.
        """
        if self._held_out is None:
            return {}
        self.layout.unpack(model)
        with self._engine.lock:
            figures = self._network.evaluate(model, self._personal.vector, self._held_out.parts())
        return finite({**plain(figures), "held_out": self._held_out.rows})

    def save(self, model: Vector, path: str | Path) -> None:
        """Write the Keras model with these weights, and this device's personal ones, to a ``.keras`` file.

        The file is written beside its place and moved there whole. Raises ConfigError for a path that ends otherwise.
        """
        target = Path(path)
        if target.suffix != ".keras":
            raise ConfigError(
                f"{target} does not end in .keras, Keras' format for whole models: name it {target.stem}.keras"
            )
        draft = target.with_suffix(".part.keras")
        with self._engine.lock:
            self._network.save(model, self._personal.vector, draft)
        draft.replace(target)


_engines: WeakValueDictionary[Hashable, KerasEngine] = WeakValueDictionary()
_engines_lock = threading.Lock()


def engine_for(key: Hashable, make: Callable[[], KerasEngine]) -> KerasEngine:
    """Return the process's engine of this `key`, made now where no trainer holds one."""
    with _engines_lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = make()
        return engine


def _shared_engine(model: keras.Model | Callable[[], keras.Model], personal: tuple[str, ...]) -> KerasEngine:
    return engine_for((id(model), personal), lambda: KerasEngine(model, personal=personal))


def plain(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures, the one accuracy that a model was compiled with under ``accuracy``, whatever its class."""
    found = [name for name in figures if name in _ACCURACIES]
    if len(found) != 1 or "accuracy" in figures:
        return dict(figures)
    return {"accuracy" if name == found[0] else name: value for name, value in figures.items()}
