"""What one made-up student hands in, and how it is packed: the same work makes the same bytes."""

import io
import stat
import zipfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Work:
    """The files of one submission. What is odd about it is changed before it is packed.

    `folder` is that in the zip, empty for none. `beside` are entries under names that stand in the zip as they are.
    `content` takes the place of the whole zip. What is `ordinary` may be handed in as a folder as well.
    """

    student_id: str
    files: dict[str, bytes]
    folder: str
    beside: dict[str, bytes] = field(default_factory=dict)
    content: bytes | None = None
    ordinary: bool = True

    def packed(self) -> bytes:
        """Return the bytes of the zip."""
        if self.content is not None:
            return self.content
        prefix = f"{self.folder}/" if self.folder else ""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, data in sorted(self.files.items()):
                archive.writestr(_entry(f"{prefix}{name}"), data)
            for name, data in sorted(self.beside.items()):
                archive.writestr(_entry(name), data)
        return buffer.getvalue()

    def write_files(self, folder: Path) -> None:
        """Write the files into a folder, as they are after somebody has unpacked the zip."""
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry with fixed time and permissions."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, on every system
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry
