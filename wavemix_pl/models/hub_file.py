"""A file on the Hugging Face hub: from huggingface_hub's cache, or fetched; its bytes are those that the hub names."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from wavemix_pl.errors import InputError

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """Where a file lies.

    Attributes:
        repository: "owner/name".
        file: In the repository.
    """

    repository: str
    file: str

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"

    def cached(self) -> Path | None:
        """Where it lies already, without a look at the network."""
        hub = _hub()
        path = hub.try_to_load_from_cache(self.repository, self.file) if hub else None
        return Path(path) if isinstance(path, str) else None  # it can be a mark of "no such file" as well

    def fetch(self, name: str, local: Path) -> Path:
        """The file in huggingface_hub's cache, with a SHA-256 that is compared with the hub's each time.

        Args:
            name: What errors call it.
            local: Where it may be put by hand, for errors to tell.

        Raises:
            InputError: It cannot be fetched, or is not what the hub has.
        """
        by_hand = f"download {self.url} by hand and put it at {local}"
        hub = _hub()
        if hub is None:
            raise InputError(f"{name} needs huggingface_hub: pip install 'wavemix_pl[hub]', or {by_hand}")
        path = self.cached()
        try:
            expected = _recorded_sha256(path) if path else None
            url = hub.hf_hub_url(self.repository, self.file)
            expected = expected or hub.get_hf_file_metadata(url, timeout=10).etag
            if not _SHA256.fullmatch(expected or ""):
                raise InputError(f"{name}: the hub tells no SHA-256 by which to verify it: {by_hand}")
            path = path or Path(hub.hf_hub_download(self.repository, self.file))
        except InputError:
            raise
        except Exception as error:  # the hub's own, or of whichever HTTP library its version uses
            raise InputError(f"{name} is not at {local}, and {_why(error)}: {by_hand}") from error
        actual = _sha256(path)
        if actual != expected:
            _remove(path)
            raise InputError(
                f"{name}: what came from the hub has the SHA-256 {actual}, the hub says {expected}: removed, and not "
                "loaded; try again"
            )
        return path


def _hub() -> ModuleType | None:
    """huggingface_hub, imported late: it takes its time, and only names need it."""
    try:
        import huggingface_hub
    except ImportError:
        return None
    return huggingface_hub


def _why(error: Exception) -> str:
    """In a few words, why the hub gave nothing."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the hub answers {response.status_code}"
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "the hub is not asked (HF_HUB_OFFLINE)"
    return f"the hub cannot be reached ({type(error).__name__})"


def _recorded_sha256(path: Path) -> str | None:
    """The hub's SHA-256 of a cached file: where the cache has links, it links to a file of that name."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Takes a file out of the cache: the link, the file of its checksum, and what that may link to in turn."""
    linked = [path.parent / path.readlink()] if path.is_symlink() else []
    for each in (path.resolve(), *linked, path):
        each.unlink(missing_ok=True)
