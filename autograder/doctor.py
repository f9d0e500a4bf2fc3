"""What this machine lacks for grading, and the line to type for each.

    python -m autograder doctor

Every finding looks at the machine alone: nothing is installed, changed or downloaded.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
# Whose presence tells that this is a container, and what makes it.
CONTAINER_MARKS = {
    Path("/.dockerenv"): "Docker",
    Path("/run/.containerenv"): "Podman",
    Path("/autograder/source"): "Gradescope",
}
CONTAINER_COMMANDS = {"Docker": "docker", "Podman": "podman"}
# What keeps namespaces from ordinary users: the setting, the value that does, the one that does not.
NAMESPACE_SETTINGS = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
)

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that we test
PACKAGES = ("torch", "sentencepiece", "protobuf", "numpy", "tqdm", "pydantic", "jinja2")
INSTALL = "python -m pip install --constraint constraints.txt"
MASTER = ("llama", "rope", "optimizer", "classifier", "component_checks", "config")
DATA = ("sst", "cfimdb")
WEIGHTS = {
    "stories42M": ("stories42M.pt", "tokenizer.model"),
    "storybook": ("checkpoints/storybook/model.safetensors", "checkpoints/storybook/tokenizer.model"),
    "stories260K": ("weights/stories260K/stories260K.bin", "weights/stories260K/tok512.bin"),
}
LEAST_DISK_MB = 500  # unpacked submission, workspace, what a check writes
RERUN_DISK_MB = 2500
LEAST_MEMORY_MB = 1000  # judge and sandbox hold PyTorch once each, and a tiny model
GOOD_MEMORY_MB = 4000


@dataclass(frozen=True)
class DoctorFinding:
    """One thing that grading needs or profits from.

    `mend` is a line to type, or a sentence where no line would do. Without what is `needed`, grading does not work
    here; the rest is told.
    """

    name: str
    ok: bool
    what: str
    mend: str = ""
    needed: bool = True


def run(stream: TextIO, out: Path | None = None) -> int:
    """Print every finding to `stream`; return 0 if grading works here, 1 if it does not."""
    found = findings(out)
    for finding in found:
        word = "ok" if finding.ok else "MISSING" if finding.needed else "note"
        stream.write(f"{word:<8}{finding.name}: {finding.what}\n")
        if not finding.ok and finding.mend:
            stream.write(textwrap.indent(finding.mend, " " * 10) + "\n")
    missing = [finding.name for finding in found if finding.needed and not finding.ok]
    if missing:
        stream.write(f"\nGrading does not work here. Mend first: {', '.join(missing)}.\n")
        return 1
    stream.write("\nGrading works here.\n")
    return 0


def findings(out: Path | None = None) -> list[DoctorFinding]:
    """Return what this machine has and lacks; `out` is the folder that results will be written to."""
    probes: tuple[Callable[[], Iterator[DoctorFinding]], ...] = (
        _system,
        _packages,
        _edition_environments,
        _trusted_modules,
        _sandbox,
        _kernel,
        _memory_limits,
        lambda: _disk(out),
        _memory,
        _data,
        _weights,
    )
    return [finding for probe in probes for finding in probe()]


def _system() -> Iterator[DoctorFinding]:
    """Look at the operating system and Python."""
    name = platform.system()
    yield DoctorFinding(
        "system", name == "Linux", name, "the sandbox needs Linux: grade in a virtual machine, or in WSL 2"
    )
    version = sys.version_info[:2]
    yield DoctorFinding(
        "Python",
        PYTHONS[0] <= version <= PYTHONS[1],
        platform.python_version(),
        "PYTHON=python3.12 ./setup.sh",
    )


def _packages() -> Iterator[DoctorFinding]:
    """Look for the packages, and for versions other than those that are tested."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    tested = {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}
    there = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in there.items() if version is None]
    yield DoctorFinding(
        "packages",
        not missing,
        f"missing: {', '.join(missing)}" if missing else ", ".join(f"{name} {there[name]}" for name in there),
        f"{INSTALL} {' '.join(missing)}",
    )
    other = [name for name, version in there.items() if version and version != tested.get(name, version)]
    if other:
        what = ", ".join(f"{name} {there[name]} (tested: {tested[name]})" for name in other)
        yield DoctorFinding("versions", False, what, f"{INSTALL} {' '.join(other)}", needed=False)


def _edition_environments() -> Iterator[DoctorFinding]:
    """Look for the libraries that the editions promise to a submission."""
    for path in sorted((ROOT / "editions").glob("*.toml")):
        names = tomllib.loads(path.read_text(encoding="utf-8")).get("environment", [])
        missing = [name for name in names if _version(name) is None]
        what = f"a submission's libraries that are missing: {', '.join(missing)}" if missing else ", ".join(names)
        yield DoctorFinding(f"edition {path.stem}", not missing, what, f"{INSTALL} {' '.join(missing)}", needed=False)


def _version(distribution: str) -> str | None:
    """Return the version of a distribution without what its builder added (+cpu); None if it is not installed."""
    try:
        return importlib.metadata.version(distribution).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _trusted_modules() -> Iterator[DoctorFinding]:
    """Make sure that `import llama` gives the master: started in a submission's folder, it may give the student's."""
    strangers = []
    for name in MASTER:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent != ROOT:
            strangers.append(f"{name} from {origin or 'nowhere'}")
    yield DoctorFinding(
        "trusted modules",
        not strangers,
        f"not the repository's: {', '.join(strangers)}" if strangers else f"{', '.join(MASTER)} are those in {ROOT}",
        f"cd {ROOT} && python -m autograder doctor",
    )


def _sandbox() -> Iterator[DoctorFinding]:
    """Ask which sandboxes work, and say why bubblewrap does not."""
    from autograder.isolation.sandbox import usable_backends  # imports torch, which takes a second

    backends = usable_backends()
    reason = backends.get("bwrap", "")
    has_uid = "uid" in backends and not backends["uid"]
    container = container_kind()
    what = reason or "works"
    if reason and has_uid and container:
        what += ". In this container, which should be thrown away afterwards, `--sandbox uid` works in its place"
    yield DoctorFinding("bubblewrap", not reason, what, bwrap_remedy(container), needed=not (has_uid and container))
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        yield DoctorFinding("setpriv", bool(setpriv), setpriv or "not installed", "apt-get install -y util-linux")


def bwrap_remedy(container: str | None) -> str:
    """Return the line that most probably makes bubblewrap work here, or what it says itself."""
    if shutil.which("bwrap") is None:
        return f"{_sudo()}apt-get install -y bubblewrap"
    if container:
        return (
            f"{container} forbids namespaces unless the container is started with\n"
            f"{CONTAINER_COMMANDS.get(container, 'docker')} run --security-opt seccomp=unconfined"
            " --security-opt apparmor=unconfined --cap-add SYS_ADMIN ..."
        )
    for setting, bad, good in NAMESPACE_SETTINGS if os.geteuid() != 0 else ():
        if _setting(setting) == bad:
            return (
                f"{setting} is {bad}, so ordinary users get no namespaces. Until the machine is started again:\n"
                f"sudo sysctl -w {setting}={good}"
            )
    return _bwrap_complaint()


def container_kind() -> str | None:
    """Return what made the container that this runs in, or None outside of one."""
    for mark, kind in CONTAINER_MARKS.items():
        if mark.exists():
            return kind
    return None


def _bwrap_complaint() -> str:
    """Run the smallest sandbox there is and return what bubblewrap says about it; empty if it works."""
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be run: {error}"
    return f"bwrap says: {done.stderr.strip()[:500]}" if done.returncode else ""


def _kernel() -> Iterator[DoctorFinding]:
    """Look for seccomp, by which the sandbox refuses system calls that no check needs."""
    available = _read(PROC / "sys/kernel/seccomp/actions_avail")
    yield DoctorFinding(
        "seccomp",
        "errno" in available.split(),
        "supported" if "errno" in available.split() else "this kernel does not offer it",
        "use a kernel with CONFIG_SECCOMP_FILTER, as every distribution's is; the sandbox is weaker without",
        needed=False,
    )


def _memory_limits() -> Iterator[DoctorFinding]:
    """Say how the memory of a whole sandbox is limited here."""
    from autograder.isolation.memory import make_guard

    guard = make_guard(64 << 20, 8)
    guard.close()
    yield DoctorFinding(
        "memory limit",
        guard.description.startswith("cgroup"),
        guard.description,
        "no cgroup may be written, so the memory in use is looked at many times a second, and a submission may exceed"
        " its limit for a moment. Where systemd runs:\n"
        "systemd-run --user --scope -p Delegate=yes python -m autograder doctor",
        needed=False,
    )


def _disk(out: Path | None) -> Iterator[DoctorFinding]:
    """Look at the free space where submissions are unpacked, and where results go."""
    places = {"temporary folder": Path(tempfile.gettempdir())}
    if out is not None:
        places["output folder"] = out
    for name, folder in places.items():
        there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path("/"))
        free = shutil.disk_usage(there).free // 1_000_000
        writable = os.access(there, os.W_OK)
        enough = free >= LEAST_DISK_MB and writable
        yield DoctorFinding(
            name,
            enough and free >= RERUN_DISK_MB,
            f"{folder}: {free:,} MB free" + ("" if writable else ", and it may not be written to"),
            f"{LEAST_DISK_MB} MB are needed, {RERUN_DISK_MB} MB for a rerun: free some, or choose another place with\n"
            + ("export TMPDIR=/path/with/room" if name == "temporary folder" else "-o /path/with/room"),
            needed=not enough,
        )


def _memory() -> Iterator[DoctorFinding]:
    """Look at the memory that is free, in the machine and in the container that this may run in."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read(PROC / "meminfo"), re.MULTILINE))
    available = int(fields.get("MemAvailable", 0)) // 1024
    limits = [_read(CGROUPS / name).strip() for name in ("memory.max", "memory/memory.limit_in_bytes")]
    limit = min((int(text) // 2**20 for text in limits if text.isdigit()), default=available)
    usable = min(available, limit)
    yield DoctorFinding(
        "memory",
        usable >= GOOD_MEMORY_MB,
        f"{usable:,} MB usable",
        f"checks need some {LEAST_MEMORY_MB} MB, reruns with stories42M {GOOD_MEMORY_MB}: end other programs, or give"
        " the container more",
        needed=usable < LEAST_MEMORY_MB,
    )


def _data() -> Iterator[DoctorFinding]:
    """Look for the data that accuracies are computed from."""
    for name in DATA:
        files = [f"{name}-{split}.txt" for split in ("train", "dev", "test")]
        missing = [file for file in files if not (ROOT / "data" / file).is_file()]
        what = f"missing in data: {', '.join(missing)}" if missing else f"{', '.join(files)} in data"
        yield DoctorFinding(name, not missing, what, f"./setup.sh --only {name}")


def _weights() -> Iterator[DoctorFinding]:
    """Look for weights: generated texts are measured with them."""
    present = {name: all((ROOT / file).is_file() for file in files) for name, files in WEIGHTS.items()}
    for name, files in WEIGHTS.items():
        missing = [file for file in files if not (ROOT / file).is_file()]
        yield DoctorFinding(
            name,
            not missing,
            f"missing: {', '.join(missing)}" if missing else files[0],
            "git checkout checkpoints/storybook" if name == "storybook" else _fetch(name),
            needed=not any(present.values()),
        )


def _fetch(name: str) -> str:
    """Return the line that fetches weights."""
    return f"./setup.sh --only {name}" + (" --only tokenizer" if name == "stories42M" else "")


def _setting(name: str) -> str:
    """Return a setting of the kernel by its name in sysctl, or nothing if there is none."""
    return _read(PROC / "sys" / name.replace(".", "/")).strip()


def _read(path: Path) -> str:
    """Return the text of a file of the system, or nothing if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sudo() -> str:
    """Return what an ordinary user types before a command that changes the system."""
    return "" if os.geteuid() == 0 else "sudo "
