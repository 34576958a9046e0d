"""Partitions as one line of text, and what is said about a wrong one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.datasets import PARTITIONS, ByOwner, Dirichlet, Iid, QuantitySkew, Shards, deal, mnist, parse
from fedmq.datasets.spelling import EXAMPLES
from fedmq.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("iid", Iid()),
        ("iid()", Iid()),
        ("by_owner", ByOwner()),
        ("dirichlet(0.5)", Dirichlet(0.5)),
        (" dirichlet ( 0.5 , 10 ) ", Dirichlet(0.5, 10)),
        ("shards(2)", Shards(2)),
        ("quantity(1.5)", QuantitySkew(1.5)),
        ("quantity(0)", QuantitySkew(0.0)),
    ],
)
def test_reads(text: str, way: object) -> None:
    assert parse(text) == way


def test_there_is_an_example_of_every_row() -> None:
    assert EXAMPLES.keys() == PARTITIONS.keys()
    assert {name: type(parse(text)) for name, text in EXAMPLES.items()} == PARTITIONS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dirichelt(0.5)", "there is no partition 'dirichelt(0.5)': did you mean 'dirichlet(0.5)'?"),
        ("DIRICHLET(0.5)", "there is no partition 'DIRICHLET(0.5)': did you mean 'dirichlet(0.5)'?"),
        ("by_person", "there is no partition 'by_person': did you mean 'by_owner'?"),
        ("quantity_skew(2", "there is no partition 'quantity_skew(2': did you mean 'quantity(1.5)'?"),
        ("dirichlet", "dirichlet takes alpha, minimum and got 0 settings: write 'dirichlet(0.5)'"),
        ("dirichlet(1,2,3)", "dirichlet takes alpha, minimum and got 3 settings: write 'dirichlet(0.5)'"),
        ("iid(3)", "iid takes nothing and got 1 settings: write 'iid'"),
        ("dirichlet(0.5", "'dirichlet(0.5' cannot be read: write 'dirichlet(0.5)'"),
        ("dirichlet(half)", "alpha is 'half' and not a number: write 'dirichlet(0.5)'"),
        ("shards(2.5)", "per_device is '2.5' and not a whole number: write 'shards(2)'"),
        ("dirichlet(0)", "dirichlet: alpha is 0.0: give a finite number above 0, as in 'dirichlet(0.5)'"),
        ("shards(-1)", "shards: per_device is -1: give a finite number above 0, as in 'shards(2)'"),
    ],
)
def test_says_what_is_wrong_and_what_is_right(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value) == sentence


def test_lists_them_all_where_none_is_near() -> None:
    with pytest.raises(
        ConfigError, match=r"write one of iid, by_owner, dirichlet\(0\.5\), shards\(2\), quantity"
    ):
        parse("zzz")


@given(st.text() | st.from_regex(r"(iid|by_owner|dirichlet|shards|quantity)\(.*\)", fullmatch=True))
def test_any_text_gives_a_partition_or_a_sentence(text: str) -> None:
    try:
        said = EXAMPLES[next(name for name, way in PARTITIONS.items() if isinstance(parse(text), way))]
    except ConfigError as error:
        said = str(error)
    assert any(example in said for example in EXAMPLES.values())


def test_deal_takes_either_form_and_a_seed() -> None:
    data = mnist()
    spelled, built, other = (
        deal("dirichlet(0.5)", data, devices=20, seed=7),
        deal(Dirichlet(0.5), data, devices=20, seed=7),
        deal(Dirichlet(0.5), data, devices=20, seed=8),
    )
    assert all(map(np.array_equal, spelled, built))
    assert not all(map(np.array_equal, spelled, other))


def test_deal_gives_the_same_parts_for_ever() -> None:
    """Results that people publish name a seed, so a change here is a breaking change."""
    parts = deal("dirichlet(0.5)", mnist(), devices=20, seed=0)
    assert [len(part) for part in parts] == [
        *(126, 274, 189, 108, 272, 268, 250, 246, 228, 312),
        *(143, 94, 134, 207, 130, 139, 276, 236, 197, 171),
    ]
