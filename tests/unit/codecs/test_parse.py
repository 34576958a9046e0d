import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.codecs import FAMILIES, PRESETS, STAGES, TRANSFORMS, Codec, parse
from fedmq.codecs.entropy import Huffman, Lzma, Plain, Zlib
from fedmq.codecs.layout import Dense, Planes
from fedmq.codecs.quantise import Float16, Float32, Int8
from fedmq.errors import ConfigError
from tests.unit.codecs.transforms import Flip, Halve


@pytest.fixture
def _transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSFORMS, "flip", Flip)
    monkeypatch.setitem(TRANSFORMS, "halve", Halve)


@pytest.mark.parametrize(
    ("line", "codec", "canonical"),
    [
        ("float32", Codec(Float32()), "float32"),
        ("int8|lzma", Codec(Int8(), entropy=Lzma()), "int8 | lzma"),
        (" float16  |  zlib( 9 ) ", Codec(Float16(), entropy=Zlib(9)), "float16 | zlib(9)"),
        ("float16 | zlib(level = 9)", Codec(Float16(), entropy=Zlib(9)), "float16 | zlib(9)"),
        ("float16 | zlib(6)", Codec(Float16(), entropy=Zlib()), "float16 | zlib"),
        ("float16 | zlib()", Codec(Float16(), entropy=Zlib()), "float16 | zlib"),
        ("int8(stochastic)", Codec(Int8("stochastic")), "int8(stochastic)"),
        ("int8(rounding=nearest)", Codec(Int8()), "int8"),
        ("float32 | dense | none", Codec(Float32(), layout=Dense(), entropy=Plain()), "float32"),
        (
            "float16 | planes | huffman",
            Codec(Float16(), layout=Planes(), entropy=Huffman()),
            PRESETS["half"],
        ),
    ],
)
def test_a_line_becomes_a_codec_and_a_canonical_line(line: str, codec: Codec, canonical: str) -> None:
    assert parse(line) == codec
    assert str(codec) == canonical
    assert parse(canonical) == codec


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_taken_by_name_and_written_in_full(name: str) -> None:
    assert str(parse(f" {name} ")) == PRESETS[name]


@pytest.mark.usefixtures("_transforms")
@pytest.mark.parametrize(
    ("line", "transforms", "canonical"),
    [
        ("flip | int8", (Flip(),), "flip | int8"),
        ("flip(2) | halve | flip | int8", (Flip(2.0), Halve(), Flip()), "flip(2.0) | halve | flip | int8"),
        ("flip(factor=1e+20)|int8", (Flip(1e20),), "flip(1e+20) | int8"),
        ("flip(-2.5e-1)|int8", (Flip(-0.25),), "flip(-0.25) | int8"),
    ],
)
def test_transforms_may_be_many_and_come_first(
    line: str, transforms: tuple[Flip | Halve, ...], canonical: str
) -> None:
    assert parse(line) == Codec(Int8(), transforms=transforms)
    assert str(parse(line)) == canonical
    assert parse(canonical) == parse(line)


def refusal(line: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(line)
    return str(refused.value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("int9 | lzma", "there is no stage `int9`: did you mean `int8`?"),
        ("float32 | lmza", "there is no stage `lmza`: did you mean `lzma`?"),
        (
            "lzma | int8",
            "stands too early, the order is feedback, transform, quantiser, layout, entropy coder: write `int8 | lzma`",
        ),
        ("planes | zlib(9) | float16", "write `float16 | planes | zlib(9)`"),
        (
            "int8 | float16 | lzma",
            "`int8 | float16 | lzma` names `int8` and `float16`, a codec has one quantiser: keep",
        ),
        (
            "int8 | lzma | zlib(1)",
            "names `lzma` and `zlib(1)`, a codec has one entropy coder: keep one of them",
        ),
        ("float32 | dense | planes", "names `dense` and `planes`, a codec has one layout: keep one of them"),
        ("lzma", "`lzma` names no quantiser: put one of `float32`, `float16`, `bfloat16`, `int8`"),
        (
            "int8 | planes",
            "layout `planes` is of no use for the symbols of `int8`: take `dense`, or leave it out",
        ),
        ("zlib(0)", "zlib has no level 0: choose one from 1 (fast) to 9 (small)"),
        ("float32 | zlib(10)", "zlib has no level 10: choose one from 1 (fast) to 9 (small)"),
        ("float32 | zlib(nine)", "zlib's level cannot be `nine`: write a whole number"),
        ("float32 | zlib(9.0)", "zlib's level cannot be `9.0`: write a whole number"),
        ("float32 | zlib(1_0)", "zlib's level cannot be `1_0`: write a whole number"),
        ("float32 | zlib(٩)", "zlib's level cannot be `٩`: write a whole number"),
        ("float32 | zlib(9, 9)", "`zlib` has no parameter for `9`: it takes level"),
        ("float32 | zlib(9, level=9)", "`zlib` is given level twice: leave one out"),
        ("float32 | zlib(lvl=9)", "`zlib` has no parameter for `lvl=9`: it takes level"),
        ("float32 | lzma(9)", "`lzma` has no parameter for `9`: it takes none, write the name alone"),
        ("int8(stocastic)", "int8's rounding cannot be `stocastic`: did you mean `stochastic`?"),
        ("", "`` does not read as a stage: write `name` or `name(value)`, such as `zlib(9)`"),
        ("int8 |", "`` does not read as a stage"),
        ("int8(", "`int8(` does not read as a stage"),
        ("int8 lzma", "`int8 lzma` does not read as a stage"),
        ("INT8", "`INT8` does not read as a stage"),
        ("int8" + " " * 200, "a codec's line has 204 characters, at most 200 are read: shorten it"),
    ],
)
def test_a_line_that_does_not_fit_is_refused_with_one_sentence(line: str, sentence: str) -> None:
    assert sentence in refusal(line)
    assert "\n" not in refusal(line)


@pytest.mark.usefixtures("_transforms")
@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "1..2", "", "0x1"])
def test_a_number_is_plain_and_finite(text: str) -> None:
    assert f"flip's factor cannot be `{text}`: write a number" in refusal(f"flip(factor={text}) | int8")


@given(st.text(max_size=40) | st.lists(st.sampled_from([*STAGES, *"|()=, 9"]), max_size=12).map("".join))
def test_any_text_is_a_codec_or_refused(line: str) -> None:
    try:
        codec = parse(line)
    except ConfigError:
        return
    assert parse(str(codec)) == codec


def test_tables_name_each_stage_once_and_by_its_own_name() -> None:
    assert len(STAGES) == sum(map(len, FAMILIES.values()))
    assert all(stage.name == name for name, stage in STAGES.items())
    assert not set(STAGES) & set(PRESETS)


@pytest.mark.usefixtures("_transforms")
def test_a_new_row_is_known_at_once() -> None:
    assert STAGES["flip"] is Flip


def test_feedback_stands_in_front_and_is_kept_in_the_line() -> None:
    codec = parse("feedback(0.5) | int8 | lzma")
    assert codec.feedback is not None
    assert codec.feedback.keep == 0.5
    assert str(codec) == "feedback(0.5) | int8 | lzma"
    assert parse("int8").feedback is None


@pytest.mark.parametrize("keep", ["0", "-1", "1.5"])
def test_feedback_of_no_share_is_refused(keep: str) -> None:
    with pytest.raises(ConfigError, match=r"choose one above 0, up to 1"):
        parse(f"feedback({keep}) | int8")
