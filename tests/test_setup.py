"""setup.sh with a stub in Python's place: no network, no installation, every decision looked at.

Run only this file: `python -m pytest tests/test_setup.py`.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("bash", "cat", "cksum", "cp", "dirname", "grep", "mkdir", "rm", "sed")
CONFIGURATION = ("setup.sh", "requirements.txt", "constraints.txt", "pyproject.toml", "assets.toml")
MODULES = ("fetch_assets.py", "asset_list.py", "download.py", "errors.py", "config.py", "utils.py")
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))

# Plays a Python: notes its arguments in calls.log, and does as much as setup.sh can see.
STUB = """#!/bin/sh
echo "$@" | sed 1q >>"{log}"
case "$1 $2" in
    "-c "*version_info*) echo {version} ;;
    "-c "*importlib.metadata*) exit 1 ;;
    "-m venv") rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip")
        case "$*" in *"install --help"*) echo "$PIP_HELP" ;; esac
        case " $* " in *" $PIP_INTERRUPTED "*) kill -INT 0 ;; esac
        for refused in $PIP_REFUSES; do
            case " $* " in *" $refused "*) echo "ERROR: pip says no" >&2; exit 1 ;; esac
        done ;;
    "fetch_assets.py --list") exec "{python}" "$@" ;;
    "fetch_assets.py "*) echo "mirror: $MINLLAMA_ASSETS" >>"{log}"; exit ${{FETCH_STATUS:-0}} ;;
esac
"""


class Machine:
    """A machine whose commands are exactly those put there, with a copy of the project in a folder with a space."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "my project"
        self.bin = tmp_path / "bin"
        self.log = tmp_path / "calls.log"
        self.root.mkdir()
        self.bin.mkdir()
        for name in CONFIGURATION + MODULES:
            shutil.copy(ROOT / name, self.root / name)
        for name in TOOLS:
            found = shutil.which(name)
            assert found, f"{name} is needed to test setup.sh"
            (self.bin / name).symlink_to(found)
        self.command("uname", 'case "$1" in -m) echo x86_64 ;; *) echo Linux ;; esac')

    def command(self, name: str, script: str) -> None:
        """Put a shell script on the PATH."""
        path = self.bin / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def python(self, name: str = "python3", version: str = "3.12") -> None:
        """Put a Python on the PATH that setup.sh takes for one of this version, if it supports it ("" if not)."""
        self.command(name, STUB.format(log=self.log, version=version, python=sys.executable))

    def run(self, *argv: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run setup.sh."""
        variables = {"PATH": str(self.bin), "PIP_HELP": "--group", "PIP_INTERRUPTED": "never", **environment}
        return subprocess.run(
            [self.root / "setup.sh", *argv],
            cwd=cwd or self.root,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,  # one that a stub may interrupt, also where the tests run in the background
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def calls(self) -> list[str]:
        """What the Pythons have been called for since the last time that this was asked; checks left out."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith(("-c", "mirror:", "-m pip --version"))]

    def installed(self) -> list[str]:
        """What pip was asked to install since the last time, without the options that are always there."""
        always = "-m pip install -qq --disable-pip-version-check --constraint constraints.txt "
        return [call.removeprefix(always) for call in self.calls() if call.startswith(always)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_script_is_valid_bash() -> None:
    subprocess.run(["bash", "-n", ROOT / "setup.sh"], check=True)
    assert os.access(ROOT / "setup.sh", os.X_OK)


def test_help_explains_the_options_and_does_nothing(machine: Machine) -> None:
    result = machine.run("--help")
    assert result.returncode == 0
    for option in ("--only NAME", "--no-assets", "--dev", "PYTHON", "MINLLAMA_ASSETS", "TORCH_INDEX_URL"):
        assert option in result.stdout
    assert not (machine.root / ".venv").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--onyl", "sst"], "error: unknown option '--onyl': see ./setup.sh --help\n"),
        (["--only"], "error: --only needs the name of an asset\n"),
        (["--only", "sst", "--no-assets"], "error: --only and --no-assets contradict each other\n"),
    ],
)
def test_bad_options_are_one_line(machine: Machine, argv: list[str], message: str) -> None:
    result = machine.run(*argv)
    assert (result.returncode, result.stderr) == (2, message)


# ---- which Python


def test_an_unsupported_python_is_told_with_the_remedy(machine: Machine) -> None:
    machine.command("python3", '[ "$1" != --version ] || echo Python 3.9.18')
    result = machine.run()
    assert result.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed, and there is Python 3.9.18. Install one" in result.stderr
    assert "PYTHON=/path/to/python3.12 ./setup.sh" in result.stderr
    assert not (machine.root / ".venv").exists()


def test_no_python_at_all_is_told(machine: Machine) -> None:
    result = machine.run()
    assert result.returncode == 2
    assert "there is no python3. Install one" in result.stderr


def test_commands_that_only_print_an_error_are_passed_over(machine: Machine) -> None:
    for name in ("python3", "python3.13"):
        machine.command(name, 'echo "pyenv: command not found" >&2; exit 127')
    machine.python("python3.12")
    result = machine.run("--no-assets")
    assert result.returncode == 0
    assert result.stderr == ""
    assert "setup: making .venv with Python 3.12" in result.stdout


def test_the_python_that_the_user_names_wins(machine: Machine) -> None:
    machine.python("python3")
    machine.python("elsewhere", "3.13")
    assert "with Python 3.13" in machine.run("--no-assets", PYTHON="elsewhere").stdout
    result = machine.run("--no-assets", PYTHON="nowhere")
    assert result.returncode == 2
    assert result.stderr == "error: PYTHON is 'nowhere', which is no Python 3.11, 3.12 or 3.13 that runs\n"


def test_a_relative_python_is_meant_from_where_the_user_stands(machine: Machine, tmp_path: Path) -> None:
    machine.python("elsewhere", "3.13")
    assert "with Python 3.13" in machine.run("--no-assets", cwd=tmp_path, PYTHON="bin/elsewhere").stdout


def test_another_python_than_the_environments_makes_it_anew(machine: Machine) -> None:
    machine.python("python3")
    machine.python("elsewhere", "3.13")
    machine.run("--no-assets")
    assert "up to date" in machine.run("--no-assets", PYTHON="python3").stdout
    assert "making it anew with Python 3.13" in machine.run("--no-assets", PYTHON="elsewhere").stdout


def test_a_broken_environment_is_made_anew(machine: Machine) -> None:
    machine.python()
    machine.run("--no-assets")
    (machine.root / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    machine.calls()
    result = machine.run("--no-assets")
    assert "setup: .venv does not work" in result.stdout
    assert "-m venv --clear .venv" in machine.calls()
    assert (result.returncode, result.stderr) == (0, "")


# ---- what is installed


def test_a_first_run_installs_and_fetches_and_a_second_does_nothing(machine: Machine) -> None:
    machine.python()
    first = machine.run()
    assert (first.returncode, first.stderr) == (0, "")
    *_, last_installation, last = machine.calls()
    assert last_installation.endswith(" --constraint constraints.txt --requirement requirements.txt")
    assert last == "fetch_assets.py"
    second = machine.run()
    assert (second.returncode, second.stdout) == (0, "setup: .venv is up to date\n")
    assert machine.calls() == ["fetch_assets.py"]


def test_an_installation_that_failed_is_shown_and_taken_up_again(machine: Machine) -> None:
    machine.python()
    failed = machine.run(PIP_REFUSES="requirements.txt")
    assert failed.returncode == 1
    assert failed.stderr == "ERROR: pip says no\n"
    assert "fetch_assets.py" not in machine.calls()
    assert machine.run().returncode == 0
    assert "--requirement requirements.txt" in machine.installed()


def test_an_interruption_stops_everything_and_says_how_to_go_on(machine: Machine) -> None:
    machine.python()
    result = machine.run(PIP_INTERRUPTED=f"{TORCH}+cpu")
    assert result.returncode == 130
    assert result.stderr == "\ninterrupted: run ./setup.sh again to go on\n"
    assert machine.installed() == [f"--retries 1 {TORCH}+cpu"]
    machine.run()
    assert "--requirement requirements.txt" in machine.installed()


def test_changed_requirements_are_installed(machine: Machine) -> None:
    machine.python()
    machine.run("--no-assets")
    machine.calls()
    with (machine.root / "requirements.txt").open("a") as file:
        file.write("one-more\n")
    machine.run("--no-assets")
    assert "--requirement requirements.txt" in machine.installed()


def test_dev_adds_the_group_of_pyproject(machine: Machine) -> None:
    machine.python()
    machine.run("--no-assets")
    machine.calls()
    machine.run("--no-assets", "--dev")
    assert machine.installed() == ["--requirement requirements.txt --group dev"]
    assert machine.run("--no-assets", "--dev").stdout == "setup: .venv is up to date\n"
    assert machine.run("--no-assets").stdout == "setup: .venv is up to date\n"
    machine.calls()
    pyproject = machine.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("\ndev = [", '\ndev = [ "one-more",'))
    machine.run("--no-assets", "--dev")
    assert machine.installed() == ["--requirement requirements.txt --group dev"]


def test_a_pip_that_knows_no_groups_is_upgraded_first(machine: Machine) -> None:
    machine.python()
    machine.run("--no-assets", "--dev", PIP_HELP="old")
    assert machine.installed()[-2:] == ["--upgrade pip>=25.1", "--requirement requirements.txt --group dev"]


# ---- which PyTorch


def test_without_a_gpu_pytorch_for_the_cpu_is_asked_for_first(machine: Machine) -> None:
    machine.python()
    result = machine.run("--no-assets")
    assert machine.installed()[0] == f"--retries 1 {TORCH}+cpu"
    assert "for the CPU, as there is no NVIDIA GPU" in result.stdout


def test_pytorchs_own_index_is_tried_next_then_the_full_build(machine: Machine) -> None:
    machine.python()
    result = machine.run("--no-assets", PIP_REFUSES=f"{TORCH}+cpu", TORCH_INDEX_URL="https://lab.invalid/cpu")
    assert (result.returncode, result.stderr) == (0, "")
    assert machine.installed()[:3] == [
        f"--retries 1 {TORCH}+cpu",
        f"--retries 1 --timeout 15 --extra-index-url https://lab.invalid/cpu {TORCH}+cpu",
        TORCH,
    ]
    assert "the full one with CUDA is downloaded" in result.stdout


def test_with_a_gpu_the_full_pytorch_is_installed(machine: Machine) -> None:
    machine.python()
    machine.command("nvidia-smi", "")
    machine.run("--no-assets")
    assert machine.installed()[0] == TORCH


def test_on_a_mac_there_is_one_pytorch(machine: Machine) -> None:
    machine.python()
    machine.command("uname", 'case "$1" in -m) echo arm64 ;; *) echo Darwin ;; esac')
    result = machine.run("--no-assets")
    assert machine.installed()[0] == TORCH
    assert "Intel" not in result.stdout


def test_on_a_mac_with_an_intel_processor_the_reason_is_told_before_pip_fails(machine: Machine) -> None:
    machine.python()
    machine.command("uname", 'case "$1" in -m) echo x86_64 ;; *) echo Darwin ;; esac')
    result = machine.run("--no-assets", PIP_REFUSES=TORCH)
    assert result.returncode == 1
    assert "not published for Macs with an Intel processor" in result.stdout


def test_constraints_pin_every_requirement() -> None:
    def names(file: str) -> set[str]:
        lines = (ROOT / file).read_text().splitlines()
        return {line.split("#")[0].split("=")[0].split(">")[0].strip() for line in lines if line[:1].isalpha()}

    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    assert names("requirements.txt") == {"torch", "sentencepiece", "protobuf", "numpy", "tqdm", "pytest"}
    assert names("requirements.txt") <= names("constraints.txt")


# ---- the assets


def test_an_unknown_asset_is_told_before_anything_is_installed(machine: Machine) -> None:
    machine.python()
    result = machine.run("--only", "nosuch")
    assert result.returncode == 2
    assert result.stderr.startswith("error: no asset is called 'nosuch': choose from sst, cfimdb, ")
    assert not (machine.root / ".venv").exists()


def test_only_the_named_assets_are_passed_on(machine: Machine) -> None:
    machine.python()
    machine.run("--only", "sst", "--only=tokenizer")
    assert machine.calls()[-1] == "fetch_assets.py --only sst --only tokenizer"


def test_an_asset_that_pip_fetches_is_asked_for_as_any_other(machine: Machine) -> None:
    machine.python()
    assert machine.run("--only", "smollm2").returncode == 0
    assert machine.calls()[-1] == "fetch_assets.py --only smollm2"


def test_a_named_asset_that_cannot_be_had_fails(machine: Machine) -> None:
    machine.python()
    assert machine.run("--only", "sst", FETCH_STATUS="2").returncode == 2


def test_a_relative_mirror_is_meant_from_where_the_user_stands(machine: Machine, tmp_path: Path) -> None:
    machine.python()
    machine.run(cwd=tmp_path, MINLLAMA_ASSETS="lab assets")
    assert f"mirror: {tmp_path}/lab assets" in machine.log.read_text().splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="skipped: needs make")
@pytest.mark.parametrize(
    ("target", "commands"),
    [
        ("demo", ["./setup.sh", ".venv/bin/python run_llama.py --option generate"]),
        ("test", ["./setup.sh --dev --no-assets", '.venv/bin/python -m pytest -n 2 --dist loadfile -m "not slow"']),
    ],
)
def test_the_two_commands_of_the_readme_do_their_own_setup(target: str, commands: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    environment["PYTHON"] = "/usr/bin/python3"  # is for setup.sh, and must not come to name the environment's own
    run = subprocess.run(["make", "-n", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == commands
    everything = subprocess.run(["make", "-pn"], cwd=ROOT, env=environment, capture_output=True, text=True).stdout
    assert "\nPYTHON = /usr/bin/python3\n" in everything
