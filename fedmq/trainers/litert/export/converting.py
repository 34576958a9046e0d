"""From functions that TensorFlow has traced to a LiteRT model, or one sentence on what LiteRT has no operation for."""

from __future__ import annotations

import re
import tempfile
from typing import TYPE_CHECKING, Any, Final

from fedmq.errors import ConfigError
from fedmq.trainers.keras.runtime import keras, tf
from fedmq.trainers.quiet import hushed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedmq.trainers.litert.file import Port

    Traced = Callable[[Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]

_MISSING: Final = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)


def convert(model: keras.Model, signatures: Mapping[str, tuple[Traced, Sequence[Port]]]) -> bytes:
    """Return a LiteRT model with these signatures, each a function and what it takes; the first is its main graph.

    Raises ConfigError, with the layers' names, where LiteRT has no operations for them.
    """
    holder = tf.Module()
    concrete = {}
    for name, (function, ports) in signatures.items():
        traced = tf.function(_by_name(function, ports), input_signature=_specs(ports), autograph=False)
        setattr(holder, name, traced)
        concrete[name] = traced.get_concrete_function()
    try:
        return _converted(holder, concrete)
    except _Unconverted as error:
        raise ConfigError(_sentence(model, concrete, str(error.__cause__))) from error.__cause__


def layers_of(model: keras.Model) -> list[keras.Layer]:
    """Return all of a model's layers, those in other layers too."""
    return list(model._flatten_layers(include_self=False))  # noqa: SLF001  # no public way


class _Unconverted(Exception):
    """The converter has given up; its cause says why, on many lines."""


def _converted(holder: tf.Module, concrete: Mapping[str, Any]) -> bytes:
    options = tf.saved_model.SaveOptions(
        experimental_custom_gradients=False
    )  # nobody differentiates it again
    with tempfile.TemporaryDirectory() as folder, hushed():
        tf.saved_model.save(holder, folder, signatures=dict(concrete), options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(concrete))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        failure = None
        try:
            return bytes(converter.convert())
        except Exception as error:  # noqa: BLE001  # whatever the converter raises, it has said why
            failure = error
    raise _Unconverted from failure


def _by_name(function: Traced, ports: Sequence[Port]) -> Callable[..., Mapping[str, tf.Tensor]]:
    def by_place(*tensors: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return function(dict(zip([port.name for port in ports], tensors, strict=True)))

    return by_place


def _specs(ports: Sequence[Port]) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(port.shape, port.dtype, name=port.name) for port in ports]


def _sentence(model: keras.Model, concrete: Mapping[str, Any], told: str) -> str:
    missing = [kind.strip() for found in _MISSING.findall(told) for kind in found.split(",")]
    if not missing:
        return f"LiteRT's converter cannot take model {model.name!r} ({_gist(told)}): train it with Keras"
    names = [
        op.name for traced in concrete.values() for op in traced.graph.get_operations() if op.type in missing
    ]
    layers = dict.fromkeys(layer for name in names if (layer := _layer(model, name)))
    where = f"layer {', '.join(map(repr, layers))}" if layers else f"model {model.name!r}"
    return (
        f"{where} cannot be trained by LiteRT, which has no {' and no '.join(dict.fromkeys(missing))}: "
        "take another layer, or train this model with Keras"
    )


def _layer(model: keras.Model, operation: str) -> str | None:
    """Return the name of the layer in whose scope an operation lies; scopes may have numbers after their names."""
    names = sorted((str(layer.name) for layer in layers_of(model)), key=len, reverse=True)
    for scope in reversed(operation.split("/")):
        for name in names:
            if re.fullmatch(rf"{re.escape(name)}(_\d+)*", scope):
                return name
    return None


def _gist(told: str) -> str:
    lines = [line.strip() for line in told.splitlines() if "error:" in line]
    return lines[0].split("error:", 1)[1].strip().rstrip(".:") if lines else "it does not say why"
