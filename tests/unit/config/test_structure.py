"""Configuration: the right file becomes dataclasses, the wrong one a sentence with a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.codecs import parse
from fedmq.config import AggregatorFile, DeviceFile, load, structure
from fedmq.config.lines import line_of
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy
from fedmq.rules import ByExamples, Finite, Mean, Momentum, NormClip, Rule, preset
from fedmq.simulate.settings import SimulationSettings

START = """[federation]
name = "watch"
folder = "state"
[model]
module = "my_model.py"
"""


def read(text: str, tmp_path: Path) -> AggregatorFile:
    path = tmp_path / "federation.toml"
    path.write_text(text)
    return load(path, AggregatorFile)


def test_the_least_file_has_defaults(tmp_path: Path) -> None:
    found = read(START, tmp_path)
    assert found.rounds == Policy()
    assert found.rule == preset("fedavg")
    assert found.broker.address == "mqtt://localhost:1883"
    assert found.settings().name == "watch"


def test_relative_paths_are_taken_from_the_file_s_folder(tmp_path: Path) -> None:
    found = read(START + '[broker]\nca_file = "ca.crt"\n', tmp_path)
    assert found.federation.folder == tmp_path / "state"
    assert found.broker.ca_file == tmp_path / "ca.crt"
    assert found.model.module == str(tmp_path / "my_model.py")


def test_a_dotted_module_stays_as_it_is(tmp_path: Path) -> None:
    assert (
        read(START.replace("my_model.py", "fedmq.demos.mnist"), tmp_path).model.module == "fedmq.demos.mnist"
    )


def test_one_personal_layer_needs_no_list(tmp_path: Path) -> None:
    assert read(START + 'personal = "head"\n', tmp_path).model.personal == ("head",)


def test_everything_can_be_said(tmp_path: Path) -> None:
    found = read(
        START
        + """
[rounds]
fraction = 0.5
over_selection = 1.3
min_devices = 10
quorum = 5
[stop]
rounds = 100
target = 0.95
[rule]
guards = ["finite", { kind = "norm_clip", limit = 5 }]
weigh = { kind = "by_examples", cap = 1000 }
reduce = "mean"
step = { kind = "momentum", beta = 0.8 }
[encoding]
up = "int8 | lzma"
keyframe_every = 10
[training]
epochs = 5
learning_rate = 0.1
shuffle = true
label = "x"
""",
        tmp_path,
    )
    assert found.rule == Rule((Finite(), NormClip(5.0)), ByExamples(1000), Mean(), Momentum(beta=0.8))
    assert found.encoding.up == parse("int8 | lzma")
    assert found.training == {"epochs": 5, "learning_rate": 0.1, "shuffle": True, "label": "x"}
    assert found.stop.target == 0.95


def test_a_preset_takes_changes(tmp_path: Path) -> None:
    found = read(START + '[rule]\npreset = "fedavg"\nstep = { kind = "momentum", beta = 0.5 }\n', tmp_path)
    assert found.rule == replace(preset("fedavg"), step=Momentum(beta=0.5))


WRONG = {
    "[rounds]\nfraction = 0.5\nquorom = 3": ("line 8", "quorom is unknown here (did you mean 'quorum'?)"),
    "[rounds]\nfraction = 'x'": ("line 7", "rounds.fraction is 'x'; a number was wanted"),
    "[rounds]\nquorum = 2.5": ("line 7", "rounds.quorum is 2.5; a whole number was wanted"),
    "[rounds]\nquorum = true": ("line 7", "rounds.quorum is true; a whole number was wanted"),
    "[rounds]\nfraction = 2": ("line 6", "fraction is 2.0; it must be above 0 and at most 1"),
    "rounds = 3": ("line 6", "rounds is unknown here"),  # it stands in [model]
    "[round]\nquorum = 3": ("line 6", "round is unknown here (did you mean 'rounds'?)"),
    "[rule]\nstep = { kind = 'momentun' }": ("line 7", "did you mean 'momentum'?"),
    "[rule]\nstep = { beta = 0.5 }": ("line 7", "a table with a kind was wanted"),
    "[rule]\nstep = 3": ("line 7", "a table with a kind was wanted"),
    "[rule]\nguards = ['finite',\n  { kind = 'norm_clip', limt = 3 },\n]": (
        "line 7",
        "limt is unknown here (did you mean 'limit'?)",
    ),
    "[rule]\npreset = 'fedagv'": ("line 6", "did you mean 'fedavg'?"),
    "[rule]\npreset = 3": ("line 6", "a text in quotes was wanted"),
    "[encoding]\nup = 'int8 | lzm'": ("line 7", "did you mean `lzma`?"),
    "[encoding]\nkeyframe_every = 0": ("line 6", "it must be from 1 to"),
    "[encoding]\nchunk_bytes = 12": ("line 6", "it must be from"),
    "[training]\nlayers = [1, 2]": ("line 7", "training.layers is [1, 2]"),
    "[broker]\nprotocol = 3": ("line 7", "it must be auto or 4 or 5"),
    "[broker]\naddress = 7": ("line 7", "a text in quotes was wanted"),
    "[broker]\nca_file = { a = 1 }": ("line 7", "is a table"),
    "[stop]\npatience = -1": ("line 6", "patience is -1"),
}


@pytest.mark.parametrize("extra", WRONG)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, extra: str) -> None:
    line, sentence = WRONG[extra]
    with pytest.raises(ConfigError) as caught:
        read(START + extra + "\n", tmp_path)
    assert sentence in str(caught.value)
    assert f"federation.toml, {line}:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[federation\n", "is not valid TOML"),
        ('[federation]\nname = "x"\nfolder = "y"\n', "missing the key 'model'"),
        (START.replace('folder = "state"\n', ""), "line 1: federation is missing the key 'folder'"),
        (START + 'file = "model.fedmq"\n', "one of the two"),
        (START.replace("module", "personal = ['head']\nfile"), "name layers as `fedmq init --personal`"),
        ("federation = 3\n", "federation is 3; a table was wanted"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=r"federation\.toml.*") as caught:
        read(text, tmp_path)
    assert sentence in str(caught.value)


def test_a_federation_s_name_is_checked_when_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="federation name 'a/b' will not do"):
        read(START.replace("watch", "a/b"), tmp_path).settings()


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.toml: No such file"):
        load(tmp_path / "nothing.toml", DeviceFile)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "x.toml", DeviceFile)


def test_a_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from the file\n")
    text = START + '[broker]\nuser = "aggregator"\n'
    monkeypatch.setenv("FEDMQ_PASSWORD", "from the environment")
    assert read(text, tmp_path).broker._password() == "from the environment"
    assert read(text + 'password_file = "secret"\n', tmp_path).broker._password() == "from the file"
    assert "from the" not in repr(read(text + 'password_file = "secret"\n', tmp_path).broker.open())
    with pytest.raises(ConfigError, match="cannot read password_file"):
        read(text + 'password_file = "nothing"\n', tmp_path).broker.open()


def test_a_device_has_the_host_s_name_by_default() -> None:
    tree = {"device": {"federation": "watch", "folder": "x"}, "trainer": {"module": "m"}}
    assert structure(tree, DeviceFile).device.device
    named = {**tree, "device": {**tree["device"], "name": "pi"}}
    assert structure(named, DeviceFile).device.device == "pi"


@pytest.mark.parametrize("world", ["smartwatch", "mnist"])
def test_the_shipped_worlds_load(world: str) -> None:
    from fedmq.simulate.play import world_settings

    settings = world_settings(world, {})
    assert isinstance(settings, SimulationSettings)
    assert Path(settings.fleet.module).exists()


# --- lines ------------------------------------------------------------------------------------------------------------

TEXT = '''a = 1
[table]
key = """
many
lines"""
other = [ 1,
  2 ]
"quoted.key" = 3
[[rows]]
name = "first"
[[rows]]
name = "second"
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("table",), 2),
        (("table", "key"), 3),
        (("table", "other"), 6),
        (("table", "quoted.key"), 8),
        (("rows", 0, "name"), 10),
        (("rows", 1, "name"), 12),
        (("rows", 1, "missing"), 11),
        (("table", "missing", "deeper"), 2),
        (("nothing",), None),
    ],
)
def test_lines_are_found(path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(TEXT, path) == line


@given(st.text(max_size=80), st.lists(st.text(max_size=5) | st.integers(0, 3), max_size=3))
def test_any_text_and_path_give_a_line_or_none(text: str, path: list[str | int]) -> None:
    found = line_of(text, path)
    assert found is None or 1 <= found <= len(text.splitlines())
