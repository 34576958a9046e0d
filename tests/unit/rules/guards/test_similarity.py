from __future__ import annotations

import math

import numpy as np
import pytest

from fedmq.errors import ConfigError, MisuseError, Refused
from fedmq.rules import Claim, Rule, Similarity
from fedmq.rules.memory import EMPTY, Memory
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout((Variable("w", (3,)), Variable("variance", (1,), kind="statistic")))
CLAIM = Claim(examples=5)


def vector(*numbers: float) -> Vector:
    return np.array([*numbers, 7.0], np.float32)


def known(*numbers: float) -> Memory:
    return {"reference": vector(*numbers)}


def test_a_thousand_updates_pass_or_scale_by_their_cosine() -> None:
    rng = np.random.default_rng(3)
    for _ in range(1000):
        delta, reference = (rng.standard_normal(4).astype(np.float32) for _ in range(2))
        cosine = float(
            np.dot(delta[:3].astype(float), reference[:3].astype(float))
            / (np.linalg.norm(delta[:3].astype(float)) * np.linalg.norm(reference[:3].astype(float)))
        )
        threshold = rng.uniform(-1, 0.9)
        memory = {"reference": reference}
        if cosine < threshold:
            with pytest.raises(Refused, match="cosine"):
                Similarity(threshold).check(delta, CLAIM, LAYOUT, memory)
        else:
            assert Similarity(threshold).check(delta, CLAIM, LAYOUT, memory) is delta
        if cosine > 0:
            scaled = Similarity(-1.0, "scale").check(delta, CLAIM, LAYOUT, memory)
            np.testing.assert_allclose(scaled, [*(delta[:3] * cosine), delta[3]], rtol=1e-6)


def test_what_is_orthogonal_or_worse_has_no_part_in_a_scaled_mean() -> None:
    guard = Similarity(-1.0, "scale")
    for numbers in ((0, 1, 0), (-1, 0, 0)):
        with pytest.raises(Refused, match="wants a positive one"):
            guard.check(vector(*numbers), CLAIM, LAYOUT, known(1, 0, 0))


def test_the_refusal_says_cosine_and_threshold() -> None:
    with pytest.raises(Refused, match=r"cosine -1 to where the model went last, wants at least 0\.2"):
        Similarity(0.2).check(vector(-2, 0, 0), CLAIM, LAYOUT, known(1, 0, 0))
    with pytest.raises(Refused, match=r"wants at least 0\.2"):
        Similarity(0.2, "scale").check(vector(1, 99, 0), CLAIM, LAYOUT, known(1, 0, 0))


@pytest.mark.parametrize("memory", [{}, known(0, 0, 0)])
def test_without_a_direction_all_pass(memory: Memory) -> None:
    delta = vector(-1, 0, 0)
    assert Similarity(0.9, "scale").check(delta, CLAIM, LAYOUT, memory) is delta


def test_an_update_of_no_length_passes() -> None:
    delta = vector(0, 0, 0)
    assert Similarity(0.9).check(delta, CLAIM, LAYOUT, known(1, 0, 0)) is delta


def test_parallel_updates_are_not_lengthened_by_rounding() -> None:
    delta = vector(0.1, 0.2, 0.3)
    scaled = Similarity(response="scale").check(delta, CLAIM, LAYOUT, {"reference": delta})
    np.testing.assert_allclose(scaled, delta, rtol=1e-6)
    assert np.all(np.abs(scaled) <= np.abs(delta))


@pytest.mark.parametrize(("beta", "reference"), [(0.0, [0, 1, 0]), (0.5, [0.5, 1, 0])])
def test_the_reference_is_what_rounds_were_reduced_to(beta: float, reference: list[float]) -> None:
    rule, memory = Rule((Similarity(-1.0, beta=beta),)), EMPTY
    for numbers in ((1, 0, 0), (0, 1, 0)):
        fold = rule.zero(LAYOUT, memory)
        rule.absorb(fold, vector(*numbers), CLAIM)
        memory = rule.finish(fold, vector(0, 0, 0)).memory
    np.testing.assert_array_equal(memory["guards.0.reference"][:3], np.array(reference, np.float32))
    assert memory["guards.0.reference"].dtype == np.float32


def test_a_reference_of_another_model_is_misuse() -> None:
    with pytest.raises(MisuseError, match="reference"):
        Similarity().check(vector(1, 0, 0), CLAIM, LAYOUT, {"reference": np.ones(9, np.float32)})


@pytest.mark.parametrize(
    "guard", [lambda: Similarity(1.0), lambda: Similarity(-1.1), lambda: Similarity(math.nan),
              lambda: Similarity(beta=1.0), lambda: Similarity(response="warn")]  # type: ignore[arg-type]
)  # fmt: skip
def test_settings_are_bounded(guard: object) -> None:
    with pytest.raises(ConfigError, match="similarity has"):
        guard()  # type: ignore[operator]


def test_it_prints_its_settings() -> None:
    assert str(Similarity()) == "similarity(at least 0)"
    assert str(Similarity(0.3, "scale")) == "similarity(at least 0.3, scaled)"
    assert str(Similarity(-1.0, "scale")) == "similarity(a positive one, scaled)"
