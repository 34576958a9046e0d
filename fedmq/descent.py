"""Local gradient descent, as far as algorithms steer it and want to know of it: two added terms, and a length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedmq.vectors import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """Terms added to a device's local objective ``f(w)``, with the round's first weights called ``start``.

    The device minimises ``f(w) + <linear, w> + strength / 2 * ||w - start||^2``, so its gradients become
    ``gradient + linear + strength * (w - start)``, before momentum or moments are taken of them. `linear` has the model
    vector's length; what it says of statistics is ignored. None is zeros.
    """

    linear: Vector | None = None
    strength: float = 0.0


def gain(steps: int, momentum: float = 0.0, *, nesterov: bool = False) -> float:
    """Return how often `steps` steps of SGD put a gradient that never changes into the weights, at a rate of one.

    Without momentum that is `steps`. With momentum ``m`` the gradient of step k is in this step and in all later ones,
    faded: ``sum_k (1 - m^k) / (1 - m)``, the L1 norm of ``a_i`` in Wang et al. 2020, "Tackling the Objective
    Inconsistency Problem in Heterogeneous Federated Optimization" (FedNova), section 4. Nesterov's form looks one step
    ahead: the same sum over k from 2 to steps + 1.
    """
    if nesterov:
        return gain(steps + 1, momentum) - 1.0
    if not momentum:
        return float(steps)
    return (steps - momentum * (1.0 - momentum**steps) / (1.0 - momentum)) / (1.0 - momentum)
