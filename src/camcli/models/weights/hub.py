"""Files on model hubs: taken from the cache without network access, or downloaded, with an error within seconds."""

import hashlib
import http.client
import re
import shlex
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from camcli.base.errors import RequestError

REVISION_PATTERN = re.compile(r"[\w./-]+", re.ASCII)
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
TIMEOUT = 3.0  # seconds that a host has to answer; the libraries would retry for 46


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of the Hugging Face hub.

    The user's settings apply: ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``, ``HF_TOKEN``.

    Attributes:
        repository: the repository's name, such as ``timm/resnet50.a1_in1k``.
        names: names of equivalent files; the first that exists is used.
        revision: a branch, tag or commit; the main branch if None.
    """

    repository: str
    names: tuple[str, ...]
    revision: str | None = None

    @property
    def host(self) -> str:
        """The hub's address."""
        return constants.ENDPOINT

    @property
    def offline_reason(self) -> str:
        """The user's setting that forbids network access, or empty."""
        return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""

    @property
    def manual_download_hint(self) -> str:
        """Instructions for putting the file into the cache by hand."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return (
            f"or fill the cache, {constants.HF_HUB_CACHE} (set by HF_HOME), where the hub can be reached: hf download "
            f"{self.repository}{revision}"
        )

    def find_cached(self) -> Path | None:
        """Find the file in the cache, without network access; None if it is missing."""
        for name in self.names:
            found = huggingface_hub.try_to_load_from_cache(self.repository, name, revision=self.revision)
            if isinstance(found, str):
                return Path(found)
        return None

    def published_sha256(self, path: Path) -> str:
        """Return the published SHA-256 of a cached file, by which the hub's cache names large files; else empty."""
        name = path.resolve().name
        return name if SHA256_PATTERN.fullmatch(name) else ""

    def download(self) -> Path:
        """Fetch the file into the cache."""
        *others, last = self.names
        for name in others:
            try:
                return self._download(name)
            except LocalEntryNotFoundError:  # the network failed; the file may still exist
                raise
            except EntryNotFoundError:
                continue
        return self._download(last)

    def _download(self, name: str) -> Path:
        return Path(huggingface_hub.hf_hub_download(self.repository, name, revision=self.revision))


@dataclass(frozen=True, slots=True)
class UrlFile:
    """A file at a URL, cached in the folder of ``torch.hub`` (``TORCH_HOME``).

    Attributes:
        url: its URL.
        check_hash: True if its name ends with the first digits of its SHA-256, which are then checked.
    """

    url: str
    check_hash: bool = False

    @property
    def host(self) -> str:
        """Scheme and host of the URL."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def offline_reason(self) -> str:
        """Empty, since no setting forbids network access here."""
        return ""

    @property
    def manual_download_hint(self) -> str:
        """Instructions for putting the file into the cache by hand."""
        return f"or fill the cache (set by TORCH_HOME): save {self.url} as {self._cache_path}"

    def find_cached(self) -> Path | None:
        """Find the file in the cache; None if it is missing."""
        return self._cache_path if self._cache_path.is_file() else None

    def published_sha256(self, path: Path) -> str:
        """Return the first digits of the published SHA-256, if the file's name has them; else empty."""
        marked = torch.hub.HASH_REGEX.search(path.name) if self.check_hash else None
        return marked.group(1) if marked else ""

    def download(self) -> Path:
        """Fetch the file into the cache."""
        self._cache_path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            self.url, str(self._cache_path), self.published_sha256(self._cache_path) or None, progress=False
        )
        return self._cache_path

    @property
    def _cache_path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(self.url).path).name


RemoteFile = HubFile | UrlFile


def parse_repository(text: str, scheme: str = "hf-hub") -> tuple[str, str | None]:
    """Parse ``owner/name`` or ``owner/name@revision`` into repository and revision; ``scheme`` is for the message.

    Raises:
        RequestError: the name or the revision is not valid on the hub.
    """
    name, _, revision = text.partition("@")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RequestError(
            f"{name!r} is not a repository name of the Hugging Face hub",
            f"write {scheme}:OWNER/NAME, or {scheme}:OWNER/NAME@REVISION: letters, digits, '-', '_' and '.', one '/' "
            "between",
        ) from error
    if revision and (not REVISION_PATTERN.fullmatch(revision) or ".." in revision):
        raise RequestError(f"there is no revision {revision!r}", "give a branch, a tag or a commit: @main")
    return name, revision or None


def fetch(file: RemoteFile, what: str) -> Path:
    """Return the path of a file in the cache, after downloading it if needed and checking its hash.

    A cached file is found without network access. Otherwise the host has three seconds to answer.

    Args:
        file: the file.
        what: its description for messages, such as ``the weights of timm:resnet50.a1_in1k``.

    Raises:
        RequestError: the file is neither cached nor available, or the cached file is not the published one; the hint
            lists the alternatives.
    """
    found = file.find_cached()
    if found is not None:
        _check_digest(file, found, what)
        return found
    reason = file.offline_reason or why_unreachable(file.host)
    if reason:
        raise _unavailable_error(file, what, reason)
    try:
        return file.download()
    except Exception as error:  # errors differ between hubs and their versions
        raise _unavailable_error(
            file, what, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        ) from error


def _check_digest(file: RemoteFile, path: Path, what: str) -> None:
    published = file.published_sha256(path)
    if not published:
        return
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if not digest.startswith(published):
        raise RequestError(
            f"{what} in the cache, {str(path)!r}, are not those that were published: their SHA-256 begins with "
            f"{digest[: len(published)][:16]}, not with {published[:16]}",
            f"{refetch_hint(path)}; or use this file anyway, if you trust it: --weights {shlex.quote(str(path))}",
        )


def refetch_hint(path: Path) -> str:
    """Explain how to make a cached file be downloaded again."""
    old = shlex.quote(str(path))
    return f"move it away to download it again: mv {old} {shlex.quote(f'{path}.bad')}"


def _unavailable_error(file: RemoteFile, what: str, reason: str) -> RequestError:
    return RequestError(
        f"{what} are not in the cache and cannot be downloaded from {file.host}: {reason}",
        "\n".join(
            (
                "give a file of your own: --weights FILE (safetensors or a .pth state dict)",
                file.manual_download_hint,
                "or leave --model out: the bundled model needs no download",
                "or try the command on an untrained network, whose maps mean nothing: --weights random",
            )
        ),
    )


def why_unreachable(url: str, seconds: float = TIMEOUT) -> str:
    """Return the reason why a host does not answer; empty if it does.

    Any answer counts except a server error (5xx), and the user's proxies are used as in a download. The time limit
    also covers name resolution, which cannot be interrupted, so a thread does it that may be left behind.
    """
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(_probe(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return reasons[0] if reasons else f"no answer within {seconds:g} seconds"


def _probe(url: str, seconds: float) -> str:
    try:
        # A new opener, since the shared one keeps the proxies of its first use.
        with urllib.request.build_opener().open(urllib.request.Request(url, method="HEAD"), timeout=seconds):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"the server answered {error.code} {error.reason}" if error.code >= 500 else ""
    except urllib.error.URLError as error:
        # The host answered; the download itself verifies the certificate, with its own store.
        return "" if isinstance(error.reason, ssl.SSLError) else _reason_text(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _reason_text(error) or type(error).__name__


def _reason_text(reason: object) -> str:
    return str(getattr(reason, "strerror", None) or reason)
