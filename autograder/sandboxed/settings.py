"""What the judge tells a sandbox when it starts it. Nothing here needs torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the judge told the sandbox when it started it."""

    workspace: str  # the submission's folder, read-only
    temporary: str  # where a process may write
    inputs: str  # the folder of a script's input files
    file_bytes: int  # the largest file
    memory_bytes: int
    output_bytes: int  # of what is printed, kept
    processes: int
    own_user: bool  # whether every process of this user belongs to the sandbox
