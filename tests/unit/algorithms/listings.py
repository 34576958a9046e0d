"""The algorithms as their papers list them, in plain float64 loops that share nothing with fedmq."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Gradient = Callable[[Numbers], Numbers]


@dataclass
class Round:
    """Who takes part, with how many local steps each."""

    devices: list[int]
    steps: list[int]


def fedprox(
    gradients: Sequence[Gradient], x: Numbers, rounds: Sequence[Round], rate: float, mu: float
) -> Numbers:
    """Li et al. 2020, algorithm 2, with K gradient steps as the inexact minimiser of h_k(w; w_t)."""
    for each in rounds:
        results = []
        for k, steps in zip(each.devices, each.steps, strict=True):
            w = x.copy()
            for _ in range(steps):
                w = w - rate * (gradients[k](w) + mu * (w - x))
            results.append(w)
        x = np.mean(results, axis=0)
    return x


def scaffold(
    gradients: Sequence[Gradient], x: Numbers, rounds: Sequence[Round], rate: float, global_rate: float
) -> tuple[Numbers, Numbers, list[Numbers]]:
    """Karimireddy et al. 2020, algorithm 1, option II."""
    everyone = len(gradients)
    c = np.zeros_like(x)
    c_i = [np.zeros_like(x) for _ in gradients]
    for each in rounds:
        delta_y, delta_c = [], []
        for i, steps in zip(each.devices, each.steps, strict=True):
            y = x.copy()
            for _ in range(steps):
                y = y - rate * (gradients[i](y) - c_i[i] + c)
            c_plus = c_i[i] - c + (x - y) / (steps * rate)
            delta_y.append(y - x)
            delta_c.append(c_plus - c_i[i])
            c_i[i] = c_plus
        x = x + global_rate * np.mean(delta_y, axis=0)
        c = c + len(each.devices) / everyone * np.mean(delta_c, axis=0)
    return x, c, c_i


def fednova(  # what the paper's listing is given
    gradients: Sequence[Gradient],
    x: Numbers,
    rounds: Sequence[Round],
    rate: float,
    momentum: float,
    examples: Sequence[int],
) -> Numbers:
    """Wang et al. 2020, equation 7 with d_i of equation 5 and tau_eff = sum of p_i ||a_i||_1."""
    for each in rounds:
        total = sum(examples[i] for i in each.devices)
        directions, norms, shares = [], [], []
        for i, steps in zip(each.devices, each.steps, strict=True):
            w, velocity, seen = x.copy(), np.zeros_like(x), []
            for _ in range(steps):
                gradient = gradients[i](w)
                seen.append(gradient)
                velocity = momentum * velocity + gradient
                w = w - rate * velocity
            a = [sum(momentum**j for j in range(steps - k)) for k in range(steps)]
            directions.append(sum(a[k] * seen[k] for k in range(steps)) / sum(a))
            norms.append(sum(a))
            shares.append(examples[i] / total)
        tau_eff = sum(share * size for share, size in zip(shares, norms, strict=True))
        step = sum(share * rate * d for share, d in zip(shares, directions, strict=True))
        x = x - tau_eff * np.asarray(step)
    return x


def differences(  # what the papers' listings are given, and the rate of the step
    gradients: Sequence[Gradient],
    x: Numbers,
    rounds: Sequence[Round],
    rate: float,
    global_rate: float,
    alpha: float,
    compress: Callable[[int, int, Numbers], Numbers],
) -> tuple[Numbers, Numbers, list[Numbers]]:
    """DIANA of Mishchenko et al. 2019, with local steps for gradients and |S| of N devices a round.

    With alpha = 1 and all of them it is EF21 of Richtarik et al. 2021: x moves by the mean of the new h_i.
    """
    everyone = len(gradients)
    h, h_i = np.zeros_like(x), [np.zeros_like(x) for _ in gradients]
    for t, each in enumerate(rounds):
        sent = []
        for i, steps in zip(each.devices, each.steps, strict=True):
            y = x.copy()
            for _ in range(steps):
                y = y - rate * gradients[i](y)
            sent.append(compress(t, i, (y - x) - h_i[i]))
            h_i[i] = h_i[i] + alpha * sent[-1]
        x = x + global_rate * (h + np.mean(sent, axis=0))
        h = h + alpha * len(each.devices) / everyone * np.mean(sent, axis=0)
    return x, h, h_i


def ef21(
    gradients: Sequence[Gradient],
    x: Numbers,
    rounds: int,
    rate: float,
    steps: int,
    compress: Callable[[int, int, Numbers], Numbers],
) -> Numbers:
    """Richtarik et al. 2021, algorithm 2, with `steps` local steps for the gradient."""
    g_i = [np.zeros_like(x) for _ in gradients]
    for t in range(rounds):
        for i, gradient in enumerate(gradients):
            y = x.copy()
            for _ in range(steps):
                y = y - rate * gradient(y)
            g_i[i] = g_i[i] + compress(t, i, (x - y) - g_i[i])
        x = x - np.mean(g_i, axis=0)
    return x


def feddyn(
    minimise: Sequence[Callable[[Numbers, Numbers, float, int], Numbers]],
    x: Numbers,
    rounds: Sequence[Round],
    alpha: float,
) -> tuple[Numbers, Numbers, list[Numbers]]:
    """Acar et al. 2021, algorithm 1; `minimise` gives a device's argmin, given theta, its gradient, alpha and steps."""
    m = len(minimise)
    h = np.zeros_like(x)
    gradient = [np.zeros_like(x) for _ in minimise]
    for each in rounds:
        thetas = []
        for k, steps in zip(each.devices, each.steps, strict=True):
            theta_k = minimise[k](x, gradient[k], alpha, steps)
            gradient[k] = gradient[k] - alpha * (theta_k - x)
            thetas.append(theta_k)
        h = h - alpha * (1 / m) * sum((theta_k - x for theta_k in thetas), np.zeros_like(x))
        x = np.mean(thetas, axis=0) - h / alpha
    return x, h, gradient
