"""devices/raspberry_pi/install.sh, on a machine that says it is a Pi, into a folder that stands for its disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedmq.config import DeviceFile, load

REPOSITORY = Path(__file__).parents[3]
PI = REPOSITORY / "devices/raspberry_pi"
WISHES = ("-n", "kitchen", "-b", "mqtts://broker.home:8884")


class Machine:
    """A stand-in for what the script asks of a machine."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self._programs = folder / "programs"
        self._memory = folder / "meminfo"
        self.disk.mkdir()
        self._programs.mkdir()
        self.answers("uname", "aarch64")
        self.answers("dpkg", "arm64")
        self.has_memory(4_000_000)
        (self._programs / "python3").symlink_to(sys.executable)

    def answers(self, program: str, words: str) -> None:
        self.has(program, f"echo '{words}'")

    def has(self, program: str, lines: str) -> None:
        path = self._programs / program
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)

    def has_memory(self, kilobytes: int) -> None:
        self._memory.write_text(f"MemTotal: {kilobytes} kB\nMemFree: 1 kB\n")

    def has_venv(self) -> None:
        """Take the place of the slow part: a venv whose pip and fedmq note what they are asked."""
        bin_ = self.disk / "opt/fedmq/bin"
        bin_.mkdir(parents=True)
        for program in ("python", "fedmq"):
            (bin_ / program).write_text(f'#!/bin/sh\necho "$@" >>"{self.disk}/asked"\n')
            (bin_ / program).chmod(0o755)

    def asked(self) -> str:
        return (self.disk / "asked").read_text()

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self._programs}:/usr/bin:/bin",
            "DESTDIR": str(self.disk),
            "MEMINFO": str(self._memory),
            "HOME": os.environ.get("HOME", "/"),
        }
        return subprocess.run(
            [PI / "install.sh", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("program", "words", "sentence"),
    [
        ("uname", "armv7l", "a machine of type armv7l"),
        ("uname", "x86_64", "a machine of type x86_64"),
        ("dpkg", "armhf", "the kernel is 64-bit, but the system's programs are armhf"),
    ],
)
def test_another_machine_is_refused(program: str, words: str, sentence: str, machine: Machine) -> None:
    machine.answers(program, words)
    done = machine.install(*WISHES)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "install the 64-bit Raspberry Pi OS" in done.stderr
    assert not list(machine.disk.iterdir())


def test_an_old_python_is_refused(machine: Machine) -> None:
    machine.has("python3", 'case "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac')
    done = machine.install(*WISHES)
    assert done.returncode == 1
    assert "Python 3.9 is too old, 3.11 is needed" in done.stderr


def test_tensorflow_on_a_pi_zero_is_refused_and_litert_is_not(machine: Machine) -> None:
    machine.has_memory(430_000)
    done = machine.install(*WISHES, "-e", "keras")
    assert done.returncode == 1
    assert "419 MB of memory, TensorFlow needs about 900: take -e litert" in done.stderr
    machine.has_venv()
    assert machine.install(*WISHES).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "-n NAME is missing"),
        (("-n", "kitchen"), "-b ADDRESS is missing"),
        (("-n", "a/b", "-b", "mqtt://x"), "'a/b' cannot be a device's name"),
        (("-n", "kitchen", "-b", "broker"), "'broker' is no broker's address"),
        (("-n", "kitchen", "-b", 'mqtt://x"|'), "is no broker's address"),
        ((*WISHES, "-e", "jax"), "-e is litert, keras or numpy, not 'jax'"),
        ((*WISHES, "more"), "'more' is one word too many"),
    ],
)
def test_misuse(arguments: tuple[str, ...], sentence: str, machine: Machine) -> None:
    done = machine.install(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[0]
    assert not list(machine.disk.iterdir())


@pytest.mark.parametrize("engine", ["litert", "keras", "numpy"])
def test_what_it_writes_is_a_device_that_loads(engine: str, machine: Machine) -> None:
    machine.has_venv()
    done = machine.install(*WISHES, "-e", engine)
    assert done.returncode == 0, done.stderr
    settings = load(machine.disk / "etc/fedmq/device.toml", DeviceFile)
    assert (settings.device.device, settings.broker.user) == ("kitchen", "kitchen")
    assert settings.broker.address == "mqtts://broker.home:8884"
    assert settings.trainer.kind == engine
    assert Path(settings.trainer.module).is_file()
    assert (machine.disk / "etc/systemd/system/fedmq-device.service").is_file()
    assert "still missing: /etc/fedmq/ca.pem /etc/fedmq/password" in done.stdout
    assert (settings.trainer.module.endswith("sensor_numpy.py")) == (engine == "numpy")
    assert Path(settings.trainer.module).with_suffix(".tflite").is_file() == (engine != "numpy")
    extra = {"litert": "[litert]", "keras": "[tensorflow]", "numpy": ""}[engine]
    assert machine.asked().splitlines()[0].endswith(f"--upgrade {REPOSITORY}{extra}")


def test_a_second_run_keeps_the_configuration_and_its_engine(machine: Machine) -> None:
    machine.has_venv()
    machine.install(*WISHES, "-e", "numpy")
    settings = machine.disk / "etc/fedmq/device.toml"
    settings.write_text(settings.read_text().replace("stay = true", "stay = false"))
    before = settings.read_text()
    (machine.disk / "etc/fedmq/sensor.py").write_text("outdated")
    for file in ("ca.pem", "password"):
        (settings.parent / file).touch()
    machine.has_memory(430_000)
    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert settings.read_text() == before
    assert (machine.disk / "etc/fedmq/sensor.py").read_text() == (PI / "sensor.py").read_text()
    assert (settings.parent / "password").stat().st_mode & 0o777 == 0o640
    assert "still missing" not in done.stdout


@pytest.mark.slow
@pytest.mark.install
@pytest.mark.timeout(600)
def test_it_really_installs(machine: Machine) -> None:
    """With the package index, and twice; the program that comes of it reads the configuration that came with it."""
    for _ in range(2):
        done = machine.install(*WISHES, "-e", "numpy")
        assert done.returncode == 0, done.stderr
        assert "fedmq, version" in done.stdout
    python = machine.disk / "opt/fedmq/bin/python"
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "tensorflow" not in listed
    shutil.rmtree(machine.disk / "var")
    made = subprocess.run(
        [machine.disk / "opt/fedmq/bin/fedmq", "init", machine.disk / "etc/fedmq/sensor_numpy.py",
         "--trainer", "numpy", "-o", machine.disk / "model.fedmq"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "19463 parameters" in made.stdout, made.stderr
