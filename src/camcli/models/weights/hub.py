"""Files on model hubs: from the cache without a word to the network, or fetched, or refused within seconds."""

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

REVISION = re.compile(r"[\w./-]+", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")
PATIENCE = 3.0  # seconds in which a host must answer; the libraries would try for 46


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in a repository of the Hugging Face hub.

    The user's settings hold: ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``, ``HF_TOKEN``.

    Attributes:
        repository: such as ``timm/resnet50.a1_in1k``.
        names: the file's name, and others that serve as well; the first that exists is taken.
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
    def offline(self) -> str:
        """Whether the user forbade the network."""
        return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""

    @property
    def instead(self) -> str:
        """How the user puts the file into the cache by hand."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return (
            f"or fill the cache, {constants.HF_HUB_CACHE} (moved by HF_HOME), where there is a network: "
            f"hf download {self.repository}{revision}"
        )

    def cached(self) -> Path | None:
        """The file in the cache, found without the network; None if it is not there."""
        for name in self.names:
            found = huggingface_hub.try_to_load_from_cache(self.repository, name, revision=self.revision)
            if isinstance(found, str):
                return Path(found)
        return None

    def digest(self, path: Path) -> str:
        """The SHA-256 that a cached file was published with: the hub's cache names large files by it."""
        name = path.resolve().name
        return name if SHA256.fullmatch(name) else ""

    def download(self) -> Path:
        """Fetch the file into the cache."""
        *others, last = self.names
        for name in others:
            try:
                return self._download(name)
            except LocalEntryNotFoundError:  # the network failed: that says nothing about the other names
                raise
            except EntryNotFoundError:
                continue
        return self._download(last)

    def _download(self, name: str) -> Path:
        return Path(huggingface_hub.hf_hub_download(self.repository, name, revision=self.revision))


@dataclass(frozen=True, slots=True)
class UrlFile:
    """A file at an address, cached where ``torch.hub`` caches (``TORCH_HOME``).

    Attributes:
        url: its address.
        hashed: whether its name ends in the beginning of its SHA-256, which is then checked.
    """

    url: str
    hashed: bool = False

    @property
    def host(self) -> str:
        """Scheme and host of the address."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def offline(self) -> str:
        """Nothing forbids the network here."""
        return ""

    @property
    def instead(self) -> str:
        """How the user puts the file into the cache by hand."""
        return f"or fill the cache (moved by TORCH_HOME) where there is a network: save {self.url} as {self._place}"

    def cached(self) -> Path | None:
        """The file in the cache; None if it is not there."""
        return self._place if self._place.is_file() else None

    def digest(self, path: Path) -> str:
        """The beginning of the SHA-256 that a file was published with, if its name has it."""
        marked = torch.hub.HASH_REGEX.search(path.name) if self.hashed else None
        return marked.group(1) if marked else ""

    def download(self) -> Path:
        """Fetch the file into the cache."""
        self._place.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(self.url, str(self._place), self.digest(self._place) or None, progress=False)
        return self._place

    @property
    def _place(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(self.url).path).name


Remote = HubFile | UrlFile


def repository(place: str) -> tuple[str, str | None]:
    """Repository and revision meant by ``owner/name`` or ``owner/name@revision``.

    Raises:
        RequestError: no repository of the hub can be called that.
    """
    name, _, revision = place.partition("@")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RequestError(
            f"no repository of the Hugging Face hub is called {name!r}",
            "say hf-hub:OWNER/NAME, or hf-hub:OWNER/NAME@REVISION: letters, digits, '-', '_' and '.', one '/' between",
        ) from error
    if revision and (not REVISION.fullmatch(revision) or ".." in revision):
        raise RequestError(f"no revision is called {revision!r}", "say a branch, a tag or a commit: @main")
    return name, revision or None


def fetch(file: Remote, what: str) -> Path:
    """The file's place in the cache; it is downloaded if it is not there yet, and it is what was published.

    A cached file is found without any network call. Otherwise the host has three seconds to answer.

    Args:
        file: what is needed.
        what: what the user is told is missing, such as ``the weights of timm:resnet50.a1_in1k``.

    Raises:
        RequestError: the file is neither cached nor to be had, or the cached one is another than was published; the
            hint gives the ways out.
    """
    found = file.cached()
    if found is not None:
        _check_digest(file, found, what)
        return found
    reason = file.offline or silence(file.host)
    if reason:
        raise _out_of_reach(file, what, reason)
    try:
        return file.download()
    except Exception as error:  # each hub and each of its versions has errors of its own
        raise _out_of_reach(file, what, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}") from error


def _check_digest(file: Remote, path: Path, what: str) -> None:
    published = file.digest(path)
    if not published:
        return
    with path.open("rb") as content:
        own = hashlib.file_digest(content, "sha256").hexdigest()
    if not own.startswith(published):
        raise RequestError(
            f"{what} in the cache, {str(path)!r}, are not those that were published: their SHA-256 begins with "
            f"{own[: len(published)][:16]}, not with {published[:16]}",
            f"{anew(path)}; or use this very file, if you know what it is: --weights {shlex.quote(str(path))}",
        )


def anew(path: Path) -> str:
    """How a file of a cache is fetched anew."""
    old = shlex.quote(str(path))
    return f"put it aside, and it is fetched anew: mv {old} {shlex.quote(f'{path}.bad')}"


def _out_of_reach(file: Remote, what: str, reason: str) -> RequestError:
    return RequestError(
        f"{what} are not in the cache and cannot be fetched from {file.host}: {reason}",
        "\n".join(
            (
                "give them yourself: --weights FILE (safetensors or a .pth state dict)",
                file.instead,
                "or leave --model out: the bundled model needs no network",
                "or try the command on an untrained network, whose maps mean nothing: --weights random",
            )
        ),
    )


def silence(url: str, seconds: float = PATIENCE) -> str:
    """Why nobody answers at an address; empty if somebody does.

    Any answer counts but a server's own error, and the user's proxies are asked as a download would ask them. The
    time holds whatever hangs: name resolution cannot be interrupted, so a thread that may be left behind does it.
    """
    reasons: list[str] = []
    asking = threading.Thread(target=lambda: reasons.append(_ask(url, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return reasons[0] if reasons else f"no answer within {seconds:g} seconds"


def _ask(url: str, seconds: float) -> str:
    try:
        # An opener of its own: the shared one keeps the proxies it saw first.
        with urllib.request.build_opener().open(urllib.request.Request(url, method="HEAD"), timeout=seconds):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"the server says {error.code} {error.reason}" if error.code >= 500 else ""
    except urllib.error.URLError as error:
        # Somebody answered; whether the certificate is good is for the download to judge, by its own store.
        return "" if isinstance(error.reason, ssl.SSLError) else _plain(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _plain(error) or type(error).__name__


def _plain(reason: object) -> str:
    return str(getattr(reason, "strerror", None) or reason)
