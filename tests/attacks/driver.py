"""Runs rows of the table in a sandbox and says what went wrong: as a function, and as a program for other users.

    python -m tests.attacks.driver BACKEND FOLDER [--fast]      # prints a JSON list of complaints

FOLDER is where secrets are put; the sandbox must not reach it.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autograder.editions import Limits
from autograder.isolation.sandbox import Backend, Call, Reply, Sandbox, open_sandbox
from component_checks import Case
from tests.attacks.table import ATTACKS, Attack

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = ["torch", "numpy", "sentencepiece", "protobuf", "tqdm"]
LIMITS = Limits(memory_mb=1500.0, file_mb=32.0, processes=40, output_kb=16.0)
SECRET_VARIABLE = "MINLLAMA_ATTACK_SECRET"
HARMLESS = Attack("harmless", frozenset({"right"}))


@dataclass(frozen=True)
class Secrets:
    """What an attack must neither read nor change."""

    folder: Path
    text: str

    @property
    def file(self) -> Path:
        """The canary."""
        return self.folder / "canary.txt"

    def touched(self) -> str:
        """Return what happened to the canary; nothing if all is well."""
        if not self.file.is_file() or self.file.read_text() != self.text:
            return "the canary was changed"
        return (
            "" if [path.name for path in self.folder.iterdir()] == [self.file.name] else "files lie beside the canary"
        )


def make_secrets(folder: Path) -> Secrets:
    """Put a canary into a folder and a secret into the environment."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secrets = Secrets(folder, f"secret {os.urandom(16).hex()}")
    secrets.file.write_text(secrets.text)
    os.environ[SECRET_VARIABLE] = secrets.text
    return secrets


def make_case() -> Case:
    """Return inputs of an RMSNorm."""
    generator = torch.Generator().manual_seed(5)
    x, weight = torch.randn(3, 8, generator=generator), torch.rand(8, generator=generator) + 0.5
    return Case({"x": x}, {"dim": 8, "eps": 1e-5}, {"weight": weight})


def expected(case: Case) -> torch.Tensor:
    """Return what the RMSNorm must give."""
    x = case.inputs["x"]
    normed: torch.Tensor = x / (x.pow(2).mean(-1, keepdim=True) + case.settings["eps"]).sqrt()
    return normed * case.weights["weight"]


def outcome(reply: Reply, case: Case) -> str:
    """Return the status, or for an answer whether it is right."""
    if reply.status != "ok":
        return reply.status
    actual, wanted = reply.outputs.get("forward(x)"), expected(case)
    if not isinstance(actual, torch.Tensor) or actual.shape != wanted.shape or actual.dtype != wanted.dtype:
        return "wrong"
    return "right" if torch.allclose(actual, wanted, atol=1e-5) else "wrong"


def _install(sandbox: Sandbox, workspace: Path, attack: Attack, source: str, words: dict[str, str]) -> None:
    """Put a row's files where the sandbox reads them; a fresh worker of the other kinds copies them anew."""
    for folder in [workspace, *([sandbox._worker.workspace] if sandbox._worker else [])]:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, text in ({"llama.py": source} | attack.files).items():
            for word, value in words.items():
                text = text.replace(f"@{word}@", value)
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            if name == "public inputs":
                for given in ("sanity_check.data", "checking.py", "errors.py"):
                    shutil.copyfile(ROOT / given, folder / given)
            else:
                path.write_text(text)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


def run_attack(
    attack: Attack, sandbox: Sandbox, workspace: Path, secrets: Secrets, together: bool = False
) -> list[str]:
    """Return what is wrong about how a row ended; nothing if all is as it must be.

    `together` makes its call twice in one process, of which there may be no answer.
    """
    case, words = make_case(), {"canary": str(secrets.file), "root": str(ROOT)}
    _install(sandbox, workspace, attack, attack.source(words), words)
    started = time.monotonic()
    call = Call("rms_norm", case, attack.seconds, max_bytes=1 << 20)
    one = sandbox.call_all([call, call], attack.seconds)[1] if together else sandbox.call(call)
    reply = one or Reply("error")
    seconds = time.monotonic() - started
    found = outcome(reply, case)
    wrong = (
        []
        if found in attack.outcomes or one is None
        else [f"{found} instead of {' or '.join(sorted(attack.outcomes))}"]
    )
    wrong += _leaks(reply, secrets)
    if attack.kind and reply.failure and attack.kind != reply.failure.kind:
        wrong.append(f"{reply.failure.kind} instead of {attack.kind}: {reply.failure.message}")
    if attack.max_seconds and reply.seconds > attack.max_seconds:
        wrong.append(f"it took {seconds:.1f} s")
    # one that is stopped costs its own time, and at most what it takes to find that out
    if found == "timeout" and reply.seconds > attack.seconds + 20:
        wrong.append(f"it was stopped after {reply.seconds:.1f} s")
    harmless = Attack("then", frozenset({"right"}), body=f"{attack.then}\nreturn good")
    _install(sandbox, workspace, harmless, harmless.source(words), words)
    reply = sandbox.call(Call("rms_norm", case, 20.0))
    if outcome(reply, case) != "right":
        wrong.append(f"the next call: {reply.status} {reply.failure} {reply.exit_status} {reply.printed[:200]}")
    return wrong + _leaks(reply, secrets)


def _leaks(reply: Reply, secrets: Secrets) -> list[str]:
    """Return what a reply shows that it must not, or shows too much of."""
    told = f"{reply.printed} {reply.failure} {list(reply.outputs)}"
    wrong = [f"it escaped: {told[:300]}"] if "ESCAPED" in reply.printed else []
    wrong += ["a secret was read"] if secrets.text in told else []
    wrong += [secrets.touched()] if secrets.touched() else []
    wrong += ["control characters came through"] if "\x1b" in told else []
    wrong += [f"{len(told)} characters came through"] if len(told) > 80_000 else []
    return wrong


def run_attacks(backend: Backend, folder: Path, rows: Sequence[Attack] = ATTACKS, together: bool = False) -> list[str]:
    """Run rows in one sandbox and return all complaints."""
    secrets = make_secrets(folder)
    complaints = []
    before = {
        path for place in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock") for path in Path(place).glob("minllama-at*")
    }
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name)
        workspace.chmod(0o755)
        with open_sandbox(backend, workspace, ENVIRONMENT, LIMITS) as sandbox:
            for attack in rows:
                started = time.monotonic()
                wrong = run_attack(attack, sandbox, workspace, secrets, together)
                complaints += [f"{attack.name}: {text}" for text in wrong]
                if "-v" in sys.argv:
                    print(
                        f"{time.monotonic() - started:5.1f} s  {attack.name}: {wrong or 'as it must'}", file=sys.stderr
                    )
    left = {
        path for place in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock") for path in Path(place).glob("minllama-at*")
    }
    return complaints + [f"{path} was left behind" for path in sorted(left - before)]


def main() -> int:
    """Run the table as the present user."""
    backend, folder = sys.argv[1:3]
    rows = [attack for attack in ATTACKS if attack.fast or "--fast" not in sys.argv]
    complaints = run_attacks(backend, Path(folder), rows)  # type: ignore[arg-type]
    print(json.dumps(complaints, indent=1))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
