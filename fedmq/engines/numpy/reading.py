"""Whether a user's Keras model is one that the NumPy engine can train, and which.

Run as a program it reads the model of a user's module and leaves what it found in a file: see
`fedmq.engines.numpy.models`, which starts it, so that TensorFlow is not in the process that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fedmq.engines.apart import serve
from fedmq.engines.keras import first_model
from fedmq.engines.numpy.layers import ConvolutionSizes, DenseSizes
from fedmq.engines.numpy.models import KerasModel
from fedmq.engines.numpy.networks import Network
from fedmq.errors import ConfigError
from fedmq.trainers.keras.checks import check_model
from fedmq.trainers.keras.optimizers import OptimizerState
from fedmq.trainers.keras.runtime import keras
from fedmq.trainers.keras.tensors import join
from fedmq.trainers.keras.weights import sort_weights

if TYPE_CHECKING:
    from fedmq.engines.numpy.networks import Sizes


_EXTRAS: Final = (
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "lora_rank",
)


def read(model: object) -> KerasModel:
    """Return what a compiled Keras model is. Raises ConfigError where the engine cannot train it."""
    check_model(model)
    assert isinstance(model, keras.Model)  # noqa: S101  # just checked
    network = _network(model)
    _check_loss(model, _weighty(model)[-1])
    rate, momentum = _sgd(model)
    weights = sort_weights(model, ())
    return KerasModel(network, weights.layout, join(weights.shared).numpy(), rate, momentum)


def _network(model: Any) -> Network:  # noqa: ANN401  # keras has no types
    if type(model) is not keras.Sequential:
        raise _refused(f"model {model.name!r} is no Sequential")
    if not model.built:
        raise _refused(f"model {model.name!r} has no keras.Input to say what an example is")
    weighty = _weighty(model)
    if not weighty:
        raise _refused(f"model {model.name!r} has no layer with weights")
    found: list[Sizes] = []
    for layer in model.layers:
        _READERS.get(type(layer), _unknown)(layer, found)
    if any(getattr(layer, "activation", None) is keras.activations.softmax for layer in weighty[:-1]):
        raise _refused("it has a softmax before its last layer")
    if type(weighty[-1]) is not keras.layers.Dense or found[-1].relu:
        raise _refused("its last layer is no Dense one that gives scores")
    return Network(_shape(weighty[0]), tuple(found))


def _weighty(model: Any) -> list[Any]:  # noqa: ANN401  # as above
    return [layer for layer in model.layers if layer.weights]


def _shape(layer: Any) -> tuple[int, ...]:  # noqa: ANN401  # as above
    """Return the shape of an example as `layer` takes it."""
    return tuple(layer.input.shape[1:])


def _read_dense(layer: Any, found: list[Sizes]) -> None:  # noqa: ANN401  # as above
    if len(_shape(layer)) != 1:
        raise _refused(f"layer {layer.name!r} takes more than numbers in a row: put a Flatten before it")
    scores = layer.activation is keras.activations.softmax  # which only the last may have: see `_check_loss`
    found.append(DenseSizes(layer.units, relu=False if scores else _is_relu(layer)))
    _check_weights(layer)


def _read_convolution(layer: Any, found: list[Sizes]) -> None:  # noqa: ANN401  # as above
    plain = layer.data_format == "channels_last" and layer.groups == 1 and layer.padding in {"valid", "same"}
    if not plain or {*layer.strides, *layer.dilation_rate} != {1}:
        raise _refused(f"layer {layer.name!r} is no plain convolution in steps of one")
    if found and not isinstance(found[-1], ConvolutionSizes):
        raise _refused(f"layer {layer.name!r} comes after a Dense one")
    _check_weights(layer)
    kernel = layer.kernel_size
    found.append(ConvolutionSizes(kernel, layer.filters, layer.padding == "same", _is_relu(layer)))


def _read_pool(layer: Any, found: list[Sizes]) -> None:  # noqa: ANN401  # as above
    plain = (
        layer.data_format == "channels_last" and layer.padding == "valid" and layer.strides == layer.pool_size
    )
    last = found[-1] if found else None
    if not plain or not isinstance(last, ConvolutionSizes) or last.pool != (1, 1):
        raise _refused(
            f"layer {layer.name!r} is no pooling of windows side by side, right behind a convolution"
        )
    found[-1] = replace(last, pool=tuple(layer.pool_size))


def _read_relu(layer: Any, found: list[Sizes]) -> None:  # noqa: ANN401  # as above
    bent = type(layer) is keras.layers.ReLU and (
        layer.max_value is not None or layer.negative_slope or layer.threshold
    )
    if bent or not _is_relu(layer) or not found:
        raise _refused(f"layer {layer.name!r} is another activation than ReLU, or the first layer")
    found[-1] = replace(found[-1], relu=True)


def _read_shape(layer: Any, found: list[Sizes]) -> None:  # noqa: ANN401  # as above
    """A shape is free before the first layer with weights; behind a convolution all numbers go into a row."""
    if found and len(layer.output.shape) != 2:  # noqa: PLR2004  # examples, numbers
        raise _refused(f"layer {layer.name!r} gives what was computed another shape than a row")


def _unknown(layer: Any, found: list[Sizes]) -> None:  # noqa: ANN401, ARG001  # as above
    raise _refused(f"it has a {type(layer).__name__} layer")


_READERS: Final[Mapping[type, Callable[[Any, list[Sizes]], None]]] = {
    keras.layers.Conv2D: _read_convolution,
    keras.layers.MaxPooling2D: _read_pool,
    keras.layers.Dense: _read_dense,
    keras.layers.ReLU: _read_relu,
    keras.layers.Activation: _read_relu,
    keras.layers.InputLayer: lambda layer, found: None,  # noqa: ARG005  # says a shape only
    keras.layers.Flatten: _read_shape,
    keras.layers.Reshape: _read_shape,
}


def _is_relu(layer: Any) -> bool:  # noqa: ANN401  # as above
    if type(layer) is keras.layers.ReLU or layer.activation is keras.activations.relu:
        return True
    if layer.activation is keras.activations.linear:
        return False
    raise _refused(f"layer {layer.name!r} has the activation {layer.activation.__name__}")


def _check_weights(layer: Any) -> None:  # noqa: ANN401  # as above
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
        f"the numpy engine cannot train this Keras model ({why}): it knows Dense, Conv2D in steps of one and "
        "MaxPooling2D behind it, Flatten, ReLU, class labels and SGD; take another engine, or engine = 'auto'"
    )


def _main(asked: Mapping[str, Any]) -> None:
    read(first_model(asked["module"], asked)).save(asked["file"])


if __name__ == "__main__":
    serve(_main)
