"""Whether a user's Keras model is a perceptron, and which: what the NumPy engine can train of Keras.

Run as a program it reads the model of a user's module and leaves what it found in a file: see
`fedmq.engines.numpy.models`, which starts it, so that TensorFlow is not in the process that trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedmq.engines.apart import serve
from fedmq.engines.keras import first_model
from fedmq.engines.numpy.models import PerceptronModel
from fedmq.errors import ConfigError
from fedmq.trainers.keras.checks import check_model
from fedmq.trainers.keras.optimizers import OptimizerState
from fedmq.trainers.keras.runtime import keras
from fedmq.trainers.keras.tensors import join
from fedmq.trainers.keras.weights import sort_weights
from fedmq.trainers.numpy import Mlp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_SHAPES_ONLY: Final = (keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Reshape)

_EXTRAS: Final = (
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "lora_rank",
)


def read(model: object) -> PerceptronModel:
    """Return what a compiled Keras model is. Raises ConfigError where it is no perceptron with SGD."""
    check_model(model)
    assert isinstance(model, keras.Model)  # noqa: S101  # just checked
    dense = _dense_layers(model)
    _check_loss(model, dense[-1])
    rate, momentum = _sgd(model)
    weights = sort_weights(model, ())
    sizes = [layer.kernel.shape for layer in dense]
    mlp = Mlp(sizes[0][0], tuple(out for _, out in sizes[:-1]), classes=sizes[-1][1])
    return PerceptronModel(mlp, weights.layout, join(weights.shared).numpy(), rate, momentum)


def _dense_layers(model: Any) -> Sequence[Any]:  # noqa: ANN401  # keras has no types
    if type(model) is not keras.Sequential:
        raise _refused(f"model {model.name!r} is no Sequential")
    if not model.built:
        raise _refused(f"model {model.name!r} has no keras.Input to say how many numbers an example has")
    layers = [layer for layer in model.layers if not isinstance(layer, _SHAPES_ONLY)]
    for number, layer in enumerate(layers):
        _check_layer(layer, last=number == len(layers) - 1)
    if not layers:
        raise _refused(f"model {model.name!r} has no layer with weights")
    return layers


def _check_layer(layer: Any, *, last: bool) -> None:  # noqa: ANN401  # as above
    if type(layer) is not keras.layers.Dense:
        raise _refused(f"it has a {type(layer).__name__} layer")
    activations = (keras.activations.linear, keras.activations.softmax) if last else (keras.activations.relu,)
    if layer.activation not in activations:
        raise _refused(f"layer {layer.name!r} has the activation {layer.activation.__name__}")
    plain = layer.use_bias and layer.trainable and layer.dtype_policy.name == "float32"
    if not plain or any(getattr(layer, extra, None) for extra in _EXTRAS):
        raise _refused(f"layer {layer.name!r} is more than a kernel and a bias in float32, both trained")


def _check_loss(model: Any, last: Any) -> None:  # noqa: ANN401  # as above
    loss, softmax = model.loss, last.activation is keras.activations.softmax
    named = loss in {"sparse_categorical_crossentropy", keras.losses.sparse_categorical_crossentropy}
    plain = type(loss) is keras.losses.SparseCategoricalCrossentropy
    if plain:
        config = loss.get_config()
        plain = (
            config["from_logits"] is not softmax
            and config["ignore_class"] is None
            and config["reduction"] == "sum_over_batch_size"
        )
    if not plain and not (named and softmax):
        raise _refused("its loss is no SparseCategoricalCrossentropy of what the last layer gives")


def _sgd(model: Any) -> tuple[float, float]:  # noqa: ANN401  # as above
    state = OptimizerState(model.optimizer, model.trainable_variables)
    nesterov = getattr(model.optimizer, "nesterov", False) and model.optimizer.momentum > 0
    if state.reach(None, 1) is None or nesterov or state.rate is None:
        raise _refused("its optimizer is more than SGD with a fixed rate and momentum")
    return state.rate, float(model.optimizer.momentum)


def _refused(why: str) -> ConfigError:
    return ConfigError(
        f"the numpy engine cannot train this Keras model ({why}): it knows Dense layers with ReLU, class labels and "
        "SGD; take another engine, or engine = 'auto'"
    )


def _main(asked: Mapping[str, Any]) -> None:
    read(first_model(asked["module"], asked)).save(asked["file"])


if __name__ == "__main__":
    serve(_main)
