"""How is a process shut in? One class a backend; each starts `sandboxed/worker.py` in a sandbox of its kind.

bwrap   bubblewrap: namespaces of its own, no network, a read-only system; for every submission of a stranger
uid     root in a disposable container: an unused user, resource limits and a filter of system calls
none    one's own code: a separate process with limits, nothing more
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Literal

from autograder.isolation.disk import DiskWatch
from autograder.isolation.environment import Environment, installed_beside
from autograder.isolation.memory import Guard, kill_family
from autograder.sandboxed.cleaning import remove_folder
from autograder.sandboxed.settings import Settings
from errors import SandboxError

Backend = Literal["bwrap", "uid", "none"]

ROOT = Path(__file__).resolve().parents[2]
GRADER = ("autograder/__init__.py", "autograder/sandboxed", "component_checks.py", "submission_rules.py")
BOOT = (
    "import sys; sys.path.insert(0, {grader!r}); sys.path.append({libraries!r});"
    " from autograder.sandboxed.quick import import_torch; import_torch();"
    " from autograder.sandboxed.worker import main; main()"
)
OPTIONS = ("-s", "-P", "-S", "-B", "-X", "utf8")  # and a clean environment: as -I, but PYTHONHASHSEED counts
USERS = range(60578, 61184)  # numbers that no distribution gives to anyone
LOCKS = Path("/tmp")  # whatever TMPDIR says: batches with temporary folders of their own must not choose the same user
SHARED = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")  # where every user may write
OLDEST_BWRAP = (0, 8)
SYSTEM = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
NAMESPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
ALLOW_NAMESPACES = (
    "allow user namespaces (sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000; on Ubuntu"
    " from 23.10 on also kernel.apparmor_restrict_unprivileged_userns=0), in a container start it with --privileged or"
    " --security-opt seccomp=unconfined; as root in a container that is thrown away, name --sandbox uid"
)


@dataclass(frozen=True)
class Box:
    """What a sandbox holds and may use."""

    workspace: Path
    environment: Environment
    memory_bytes: int
    file_bytes: int
    output_bytes: int
    processes: int
    inputs: Mapping[str, Path] = field(default_factory=dict)  # name in the folder of input files -> file


# --- starting a process ---

_starter: ThreadPoolExecutor | None = None


def _forget_starter() -> None:
    """Forget the thread that starts processes: a forked child does not have it."""
    global _starter
    _starter = None


os.register_at_fork(after_in_child=_forget_starter)


def start_process(start: Callable[[], "subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
    """Start a process from the one thread that lives as long as this process.

    Told to die with its parent, a process dies with the *thread* that started it, and threads that grade come and go.
    """
    global _starter
    if _starter is None:
        _starter = ThreadPoolExecutor(1, thread_name_prefix="sandboxes")
    return _starter.submit(start).result()


def clean_environment(temporary: str) -> dict[str, str]:
    """Return all the environment variables of a sandbox."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    return threads | {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": temporary,
        "TMPDIR": temporary,
        "USER": "student",
        "PYTHONHASHSEED": "0",
    }


class Place(ABC):
    """One sandbox of a kind, from before its start to after its end."""

    description: str
    workspace: Path  # the copy of the submission that the sandbox reads

    def __init__(self, box: Box) -> None:
        """Prepare a sandbox."""
        self.box = box

    @abstractmethod
    def start(self, guard: Guard, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start the worker; its standard error goes to a file."""

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill every process of the sandbox."""
        kill_family(process.pid)

    def what_killed(self) -> str:
        """Return why this kind of sandbox has killed its processes itself, or nothing."""
        return ""

    def close(self) -> None:  # noqa: B027 - not every kind leaves something
        """Remove what the sandbox has left, after its processes have ended."""

    def _worker(self, folders: "Folders", own_user: bool) -> list[str]:
        """Return the command that starts the worker, as seen from inside."""
        box = self.box
        settings = Settings(
            workspace=folders.workspace,
            temporary=folders.temporary,
            inputs=folders.inputs,
            file_bytes=box.file_bytes,
            memory_bytes=box.memory_bytes,
            output_bytes=box.output_bytes,
            processes=box.processes,
            own_user=own_user,
        )
        boot = BOOT.format(grader=folders.grader, libraries=folders.libraries)
        return [str(box.environment.python), *OPTIONS, "-c", boot, json.dumps(asdict(settings))]

    def _popen(
        self, command: list[str], guard: Guard, errors: IO[bytes], temporary: str, keep: tuple[int, ...] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start a command in the guard's groups, with a clean environment and none of our descriptors."""
        command = _joining(guard) + command
        return start_process(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env=clean_environment(temporary),
                pass_fds=keep,
                start_new_session=True,
            )
        )


@dataclass(frozen=True)
class Folders:
    """Where things lie, as seen from inside a sandbox."""

    grader: str = "/grader"
    libraries: str = "/env"
    workspace: str = "/submission"
    temporary: str = "/tmp"
    inputs: str = "/inputs"


def _joining(guard: Guard) -> list[str]:
    """Return the beginning of a command that joins the guard's groups before anything else is started."""
    if not guard.joins:
        return []
    joins = "".join(f'echo 0 > "${i}" && ' for i in range(1, len(guard.joins) + 1))
    return ["/bin/sh", "-c", f'{joins}shift {len(guard.joins)} && exec "$@"', "sh", *map(str, guard.joins)]


# --- an unused user ---


class User:
    """A user number that nobody else has, as long as this lives: parallel sandboxes must not share one."""

    def __init__(self) -> None:
        """Take a number. Raises SandboxError if all are taken."""
        folder = LOCKS / f"minllama-users-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise SandboxError(f"{folder} belongs to somebody else: remove it")
        running = _users_running()
        for number in USERS:
            if number in running or _is_known(number):
                continue
            lock = os.open(folder / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            self.number, self._lock = number, lock
            return
        raise SandboxError(f"every user from {USERS.start} to {USERS.stop - 1} is taken: end the other sandboxes")

    def close(self) -> None:
        """Give the number back."""
        os.close(self._lock)

    def kill(self) -> None:
        """Kill all processes of this user, at once."""
        code = f"import os; os.setresgid(*[{self.number}]*3); os.setresuid(*[{self.number}]*3); os.kill(-1, 9)"
        subprocess.run([sys.executable, *OPTIONS, "-c", code], check=False, capture_output=True, env={}, cwd="/")

    def become(self) -> list[str]:
        """Return the beginning of a command that runs as this user, without any privilege."""
        number = str(self.number)
        return [
            *("setpriv", "--reuid", number, "--regid", number, "--clear-groups", "--no-new-privs"),
            *("--bounding-set", "-all", "--inh-caps", "-all", "--"),
        ]


def _is_known(number: int) -> bool:
    """Return whether a user has an account."""
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True


def _users_running() -> set[int]:
    """Return the users that have processes."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(entry.stat().st_uid)
                status = (entry / "status").read_text(encoding="utf-8", errors="replace")
                if match := re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE):
                    found.add(int(match.group(1)))
    return found


# --- bubblewrap ---


class Bubblewrap(Place):
    """Namespaces of its own; as root also an unused user, since root keeps its privileges in a namespace."""

    def __init__(self, box: Box) -> None:
        """Prepare a sandbox."""
        super().__init__(box)
        self.user = User() if os.getuid() == 0 else None
        self.description = "bwrap (root, setpriv)" if self.user else "bwrap (user namespace)"
        # copies: the originals may lie where the sandbox's user may not read
        self.folder = Path(tempfile.mkdtemp(prefix="minllama-sandbox-"))
        self.workspace = self.folder / "submission"
        _copy(box.workspace, self.workspace)
        for name in GRADER:
            _copy(ROOT / name, self.folder / "grader" / name)
        self._inputs = {name: self._readable(name, path.resolve()) for name, path in box.inputs.items()}

    def _readable(self, name: str, path: Path) -> Path:
        """Return a file or folder itself if everybody may read it, and else a copy."""
        everything = [path, *path.rglob("*")] if path.is_dir() else [path]
        if all(each.stat().st_mode & (0o001 if each.is_dir() else 0o004) for each in everything):
            return path
        _copy(path, self.folder / "inputs" / name)
        return self.folder / "inputs" / name

    def start(self, guard: Guard, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start the worker; its standard error goes to a file."""
        arguments = [*bwrap_basics(), *self._mounts()]
        # in a file: the list of processes shows command lines to whoever is in the sandbox
        with tempfile.TemporaryFile() as file:
            file.write(b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
            file.flush()
            file.seek(0)
            command = ["bwrap", "--args", str(file.fileno()), "--"]
            command += [*(self.user.become() if self.user else []), *self._worker(Folders(), own_user=True)]
            return self._popen(command, guard, errors, "/tmp", keep=(file.fileno(),))

    def close(self) -> None:
        """Remove the copies and give the user back."""
        remove_folder(self.folder)
        if self.user:
            self.user.close()

    def _mounts(self) -> list[str]:
        """Return the options for all that the sandbox sees."""
        box, inside = self.box, Folders()
        mounts = _system_mounts(box.environment)
        mounts += _bound(self.folder / "grader", inside.grader)
        for name, path in box.environment.entries.items():
            mounts += _bound(path, f"{inside.libraries}/{name}")
        mounts += _bound(self.workspace, inside.workspace)
        for name, path in self._inputs.items():
            mounts += _bound(path, f"{inside.inputs}/{name}")
        mounts += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        mounts += ["--perms", "1777", "--size", str(box.file_bytes), "--tmpfs", inside.temporary]
        return [*mounts, "--remount-ro", "/", "--chdir", "/"]


def bwrap_basics() -> list[str]:
    """Return the options that every sandbox has."""
    own = [] if os.getuid() == 0 else ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    # as process 1 the worker cannot be killed or stopped from inside, and nobody else of its user is there to look into
    return [*NAMESPACES, *own, "--die-with-parent", "--as-pid-1", "--new-session", "--hostname", "sandbox"]


def _system_mounts(environment: Environment) -> list[str]:
    """Return the options for the libraries of the system and Python's own files."""
    mounts = []
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            mounts += ["--symlink", str(path.readlink()), name]
        elif path.exists():
            mounts += _bound(path, name)
    setpriv = shutil.which("setpriv")
    if os.getuid() == 0 and setpriv:
        mounts += _bound(Path(setpriv), "/usr/bin/setpriv")
    if environment.prefix != Path("/usr"):  # its libraries are there already
        mounts += _bound(environment.prefix, str(environment.prefix))
    if not environment.python.is_relative_to(environment.prefix) or environment.prefix == Path("/usr"):
        mounts += _bound(environment.python, str(environment.python))
    hidden = installed_beside(environment.prefix)
    hidden += [ROOT] if ROOT.is_relative_to(environment.prefix) else []
    for path in hidden:
        mounts += ["--tmpfs", str(path), "--remount-ro", str(path)]
    return mounts


def _bound(source: Path, target: str) -> list[str]:
    """Return the options that show a file or folder, read-only, below folders that everybody may enter."""
    parents = [parent for parent in reversed(Path(target).parents) if str(parent) != "/"]
    options = [option for parent in parents for option in ("--perms", "0755", "--dir", str(parent))]
    return [*options, "--ro-bind", str(source), target]


# --- a user of its own, or nothing ---


class Private(Place):
    """A folder of its own, with copies of what the submission's process reads."""

    def __init__(self, box: Box) -> None:
        """Make the folder."""
        super().__init__(box)
        self.folder = Path(tempfile.mkdtemp(prefix="minllama-sandbox-"))
        self.folder.chmod(0o711)
        names = ("grader", "env", "submission", "tmp", "inputs")
        self.inside = Folders(*(str(self.folder / name) for name in names))
        self.workspace = Path(self.inside.workspace)
        for name in names[:2] + names[3:]:
            (self.folder / name).mkdir(mode=0o755)
        for name in GRADER:
            _copy(ROOT / name, Path(self.inside.grader, name))
        for name, path in box.environment.entries.items():
            target = Path(self.inside.libraries, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
        _copy(box.workspace, self.workspace)
        for name, path in box.inputs.items():
            self._show(path.resolve(), Path(self.inside.inputs, name))

    def _show(self, source: Path, target: Path) -> None:
        """Make an input file readable."""
        target.symlink_to(source)

    def close(self) -> None:
        """Remove the folder."""
        remove_folder(self.folder)


def _ignored(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied: caches, and links, which a stranger may have pointed anywhere."""
    return [name for name in names if Path(folder, name).is_symlink()]


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder, without the links in it, so that everybody may read it and only we may write to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        shutil.copytree(source, target, ignore=_ignored, copy_function=shutil.copy2)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


class OtherUser(Private):
    """A user that nobody else is, in a container that is thrown away."""

    description = "uid (an unused user in this container)"

    def __init__(self, box: Box) -> None:
        """Make the folder and take a user."""
        self.user = User()
        self._disk: DiskWatch | None = None
        super().__init__(box)
        os.chown(self.inside.temporary, self.user.number, self.user.number)
        Path(self.inside.temporary).chmod(0o700)

    def _show(self, source: Path, target: Path) -> None:
        """Copy an input file: it may lie where that user may not look."""
        _copy(source, target)

    def start(self, guard: Guard, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start the worker; its standard error goes to a file."""
        command = [*self.user.become(), *self._worker(self.inside, own_user=True)]
        process = self._popen(command, guard, errors, self.inside.temporary)
        folders = [Path(self.inside.temporary), *map(Path, SHARED)]
        self._disk = DiskWatch(folders, self.user.number, self.box.file_bytes, process.pid, self.user.kill)
        return process

    def what_killed(self) -> str:
        """Return that too much was written, if so."""
        megabytes = self.box.file_bytes // (1 << 20)
        return f"[it wrote more than {megabytes} MB and was stopped]" if self._disk and self._disk.has_killed else ""

    def kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill every process of the user, wherever it has hidden."""
        self.user.kill()
        kill_family(process.pid)

    def close(self) -> None:
        """Remove what the user has left, wherever everybody may write, and give it back."""
        if self._disk:
            self._disk.close()
        self.user.kill()
        super().close()
        for place in SHARED:
            _remove_files_of(self.user.number, Path(place))
        self.user.close()


def _remove_files_of(user: int, folder: Path) -> None:
    """Remove what belongs to a user directly in a folder that everybody may write to."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.lstat().st_uid != user:
                continue
            if path.is_dir() and not path.is_symlink():
                remove_folder(path)
            else:
                path.unlink(missing_ok=True)


class Own(Private):
    """One's own code: its own process and limits, and no wall around it."""

    description = "none (own code only)"

    def start(self, guard: Guard, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start the worker; its standard error goes to a file."""
        return self._popen(self._worker(self.inside, own_user=False), guard, errors, self.inside.temporary)


# --- which of them are usable ---

PLACES: dict[Backend, type[Place]] = {"bwrap": Bubblewrap, "uid": OtherUser, "none": Own}


def why_no_bwrap() -> str:
    """Return why bubblewrap is not usable here and the remedy, or nothing."""
    program = shutil.which("bwrap")
    if sys.platform != "linux":
        return "bubblewrap needs Linux: grade on a Linux machine"
    if program is None:
        return "bubblewrap is not installed: run `apt-get install bubblewrap`"
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        return "setpriv is not installed: run `apt-get install util-linux`"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_BWRAP:
        return (
            f"{version.strip() or program} is too old: install bubblewrap {'.'.join(map(str, OLDEST_BWRAP))} or later"
        )
    command = [program, *bwrap_basics(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "/bin/true"]
    probe = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if probe.returncode != 0:
        return f"bubblewrap cannot start here ({probe.stderr.strip()[:200]}): {ALLOW_NAMESPACES}"
    return ""


def _torch_folder() -> Path:
    """Return where torch is installed, without importing it."""
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin if spec and spec.origin else "/").parent


def why_no_uid() -> str:
    """Return why an unused user is no protection here and the remedy, or nothing."""
    if os.getuid() != 0:
        return "only root can start a process as another user: use bwrap"
    if shutil.which("setpriv") is None:
        return "setpriv is not installed: run `apt-get install util-linux`"
    if _others_may_enter(ROOT):
        return f"every user can read {ROOT}, and with it the solution: run `chmod 700 {ROOT}`"
    for path in (Path(os.path.realpath(sys.base_prefix)), _torch_folder()):
        if not _others_may_enter(path):
            return f"an unused user cannot read {path}: install Python and its libraries where everybody may read them"
    if not _others_may_enter(Path(tempfile.gettempdir())):
        return f"an unused user cannot enter {tempfile.gettempdir()}: name another folder in TMPDIR"
    return ""


def _others_may_enter(path: Path) -> bool:
    """Return whether a user without rights may enter a folder."""
    resolved = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (resolved, *resolved.parents))
