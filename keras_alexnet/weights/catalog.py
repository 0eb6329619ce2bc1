"""The published files of weights that are known, and how to get them.

Nothing is downloaded unless it is asked for by name. A download that breaks off is
continued; a file counts only when its digest is the published one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from keras_alexnet.errors import UserError, unknown

if TYPE_CHECKING:
    from keras_alexnet.images.preprocessing import Preprocessing

CACHE_VARIABLE = "KERAS_ALEXNET_CACHE"
DEFAULT_CACHE = "~/.cache/keras_alexnet/weights"

ATTEMPTS = 5
SECONDS_BETWEEN_ATTEMPTS = 1.0
TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 20
# No AlexNet is larger; a server that sends more sends something else.
MOST_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file that somebody published.

    Attributes:
        name: What `fetch_weights` calls it.
        file_name: What its publisher calls it.
        urls: Where it is, the publisher's own place first.
        digest: The algorithm and the digest, `"sha256:..."` or `"sha1:..."`.
        source: Who published it, and under which terms, for people.
        architecture: The architecture that it holds weights for; None if none.
        mode: The preprocessing mode that the weights expect; None if none.
        mean_file: The file with the mean image that goes with the mode, if any.
        class_order: How its classes are numbered.
        top1_error: Error on the validation images of ILSVRC2012 as published, one
            centre crop, between 0 and 1.
        top5_error: The same, for the five likeliest classes.
        note: What else one should know.
    """

    name: str
    file_name: str
    urls: tuple[str, ...]
    digest: str
    source: str
    architecture: str | None = None
    mode: str | None = None
    mean_file: str | None = None
    class_order: str | None = "wordnet"
    top1_error: float | None = None
    top5_error: float | None = None
    note: str = ""

    def preprocessing(self, **changes: Any) -> Preprocessing | None:
        """Returns what the weights expect of images; None for what are no weights.

        Args:
            **changes: Attributes that differ, above all the `mean_image`.
        """
        from keras_alexnet.images.preprocessing import get_preprocessing

        return None if self.mode is None else get_preprocessing(self.mode, **changes)


def _onnx(
    name: str, folder: str, file_name: str, digest: str, **fields
) -> PublishedFile:
    """A file of the ONNX model zoo, which has moved from GitHub to Hugging Face."""
    path = f"validated/vision/classification/{folder}/model/{file_name}"
    return PublishedFile(
        name=name,
        file_name=file_name,
        urls=(
            f"https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/{path}",
            f"https://github.com/onnx/models/raw/main/{path}",
        ),
        digest=digest,
        source="ONNX model zoo, converted from Caffe's weights, BSD-3-Clause",
        mode="caffe",
        mean_file="caffe-imagenet-mean",
        **fields,
    )


_ONNX_NOTE = (
    "The graph takes 224 pixels and pads pool5; the weights were trained with 227, and "
    "that is what the architecture here takes. Published errors are the graph's own."
)

_FILES = (
    # The first eight digits of the SHA-256 are in the name, by torchvision's custom.
    PublishedFile(
        name="torchvision-alexnet",
        file_name="alexnet-owt-7be5be79.pth",
        urls=("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
        digest="sha256:"
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        source="torchvision, AlexNet_Weights.IMAGENET1K_V1, BSD-3-Clause",
        architecture="alexnet_owt",
        mode="torch",
        top1_error=0.43478,
        top5_error=0.20934,
    ),
    # The digests of Caffe's weights are those in its models' readme.md.
    PublishedFile(
        name="caffe-alexnet",
        file_name="bvlc_alexnet.caffemodel",
        urls=("http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",),
        digest="sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377",
        source="BVLC Caffe, models/bvlc_alexnet, unrestricted use",
        architecture="bvlc_alexnet",
        mode="caffe",
        mean_file="caffe-imagenet-mean",
        top1_error=0.429,
        top5_error=0.198,
    ),
    PublishedFile(
        name="caffe-caffenet",
        file_name="bvlc_reference_caffenet.caffemodel",
        urls=("http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",),
        digest="sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        source="BVLC Caffe, models/bvlc_reference_caffenet, unrestricted use",
        architecture="caffenet",
        mode="caffe",
        mean_file="caffe-imagenet-mean",
        top1_error=0.426,
        top5_error=0.196,
    ),
    # The file of the package lpips 0.1.4 on PyPI, too.
    PublishedFile(
        name="lpips-alex",
        file_name="alex.pth",
        urls=(
            "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"
            "lpips/weights/v0.1/alex.pth",
        ),
        digest="sha256:"
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        source="R. Zhang et al., PerceptualSimilarity, BSD-2-Clause",
        class_order=None,
        note="Weights of AlexNet's channels, for `keras_alexnet.LPIPS`.",
    ),
    # Caffe publishes the mean inside caffe_ilsvrc12.tar.gz only.
    PublishedFile(
        name="caffe-imagenet-mean",
        file_name="imagenet_mean.binaryproto",
        urls=(
            "https://github.com/Robert0812/deepsaldet/raw/master/caffe-sal/data/"
            "ilsvrc12/imagenet_mean.binaryproto",
        ),
        digest="sha1:63e4652e656abc1e87b7a8339a7e02fca63a2c0c",
        source="BVLC Caffe, data/ilsvrc12",
        class_order=None,
        note="Caffe's own copy is in "
        "http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz.",
    ),
    PublishedFile(
        name="numpy-alexnet",
        file_name="bvlc_alexnet.npy",
        urls=("https://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy",),
        digest="sha256:"
        "1294ef51496c52f2e4879ee3b5e1da22c35d61f3240937491b4469403d5428cc",
        source="M. Guerzhoy, University of Toronto, converted from Caffe's weights",
        architecture="bvlc_alexnet",
        mode="caffe",
        mean_file="caffe-imagenet-mean",
        note="The publisher has not measured its error; it holds caffe-alexnet's "
        "weights.",
    ),
    # Digests from the zoo's ONNX_HUB_MANIFEST.json.
    _onnx(
        "onnx-alexnet-12",
        "alexnet",
        "bvlcalexnet-12.onnx",
        "sha256:6b0da9510f27f234ee96a85dc3809dd210150fdefad87f6850f9788513216945",
        architecture="bvlc_alexnet",
        top1_error=0.4520,
        top5_error=0.2177,
        note=_ONNX_NOTE,
    ),
    _onnx(
        "onnx-alexnet-9",
        "alexnet",
        "bvlcalexnet-9.onnx",
        "sha256:ef3c82dad5c512f969dbf701fe35c0b3feb1585687d541f765eb68730c0a8af7",
        architecture="bvlc_alexnet",
        note=_ONNX_NOTE,
    ),
    _onnx(
        "onnx-caffenet-12",
        "caffenet",
        "caffenet-12.onnx",
        "sha256:ea563e5c47d1f58e1717cf1a2d8bf288b8adc07af0ad228b622096cd243aeecb",
        architecture="caffenet",
        note=_ONNX_NOTE,
    ),
    _onnx(
        "onnx-caffenet-9",
        "caffenet",
        "caffenet-9.onnx",
        "sha256:802138332cf3e423c82a9a80c76e4f9227dd4effb3aba55413601fa4345cfd36",
        architecture="caffenet",
        note=_ONNX_NOTE,
    ),
)
CATALOG = {file.name: file for file in _FILES}


def list_weights(pattern: str = "*") -> list[str]:
    """Lists the names of the published files that match a shell pattern."""
    return sorted(fnmatch.filter(CATALOG, pattern))


def get_published(name: str) -> PublishedFile:
    """Returns what is known of a published file.

    Args:
        name: Its name in the catalog, or its publisher's file name.

    Raises:
        ValueError: There is no such file; the message lists those that are known.
    """
    by_file_name = {file.file_name: file for file in CATALOG.values()}
    file = CATALOG.get(name) or by_file_name.get(name)
    if file is None:
        raise UserError(unknown(str(name), "published weights", CATALOG))
    return file


def find_weights(weights: str | Path, architecture: str | None = None) -> Path:
    """Returns the file of weights that is meant, downloaded if need be.

    Args:
        weights: A file; or the name of a published one, see `list_weights()`; or
            `"imagenet"`, for weights that are published for the architecture.
        architecture: The architecture's name; None for torchvision's.

    Raises:
        ValueError: There is neither such a file nor such a name.
        OSError: It could not be downloaded. The message says where to put a copy.
    """
    if Path(weights).is_file():
        return Path(weights)
    if weights == "imagenet":
        names = {file.architecture: file.name for file in reversed(_FILES)}
        name = names.get(architecture or _FILES[0].architecture)
        if name is None:
            known = ", ".join(sorted(filter(None, names)))
            raise UserError(
                f"No weights of {architecture} for ImageNet have been published; there "
                f"are some of {known}."
            )
        return fetch_weights(name)
    try:
        name = get_published(str(weights)).name
    except UserError as error:
        raise UserError(f"No such weights file: {weights}. {error}") from None
    return fetch_weights(name)


def identify(path: str | Path) -> PublishedFile | None:
    """Returns the published file that a file is a copy of, whatever it is called."""
    digests = {file.digest.split(":")[0] for file in CATALOG.values()}
    found = set(_digests(Path(path), digests))
    for file in CATALOG.values():
        if file.digest in found:
            return file
    return None


def cache_directory(cache_dir: str | Path | None = None) -> Path:
    """Returns where published files are kept.

    That is `cache_dir`, or what the environment variable `KERAS_ALEXNET_CACHE` says, or
    `~/.cache/keras_alexnet/weights`.
    """
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE
    return Path(chosen).expanduser()


def fetch_weights(name: str, cache_dir: str | Path | None = None) -> Path:
    """Downloads a published file, unless it is there already.

    What has arrived is kept when the connection breaks, and the next attempt goes on
    from there. The file appears under its name only when it is complete and its digest
    is right, so a file brought by hand to that place is taken as well.

    Args:
        name: Its name in the catalog (see `list_weights()`), or its file name.
        cache_dir: Where to keep it. Defaults to `cache_directory()`.

    Returns:
        The file's path.

    Raises:
        ValueError: No such name, or a file with another content than published.
        OSError: It could not be downloaded, or not written. The message says where to
            put a copy.
    """
    file = get_published(name)
    directory = cache_directory(cache_dir)
    target = directory / file.file_name
    if target.is_file():
        _check_digest(target, file)
        return target
    directory.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _locked(part) as output:
        if target.is_file():
            # Another process has been faster.
            return fetch_weights(name, cache_dir)
        problems, wrong = [], False
        for url in file.urls:
            try:
                found = _download_checked(url, file, output)
            except (OSError, http.client.HTTPException) as error:
                problems.append(f"{url}: {_reason(error)}")
                continue
            if found == file.digest:
                break
            wrong = True
            problems.append(
                f"{url}: not the published file, its digest is {found} instead of "
                f"{file.digest}"
            )
        else:
            raise (ValueError if wrong else OSError)(
                f"{file.file_name} could not be downloaded ({'; '.join(problems)}). "
                "Try again, which continues where it stopped, or get it by other means "
                f"and put it at {target}"
            )
        os.fsync(output.fileno())
        os.replace(part, target)
    return target


# === Download ===


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Opens the unfinished file for this process alone.

    Raises:
        OSError: Another process is downloading it.
    """
    try:
        import fcntl
    except ImportError:
        # Windows, where two writers merely end up with a wrong digest.
        fcntl = None
    with open(part, "ab") as output:
        if fcntl is not None:
            try:
                fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(f"Another process is downloading {part} now.") from None
        yield output


def _download_checked(url: str, file: PublishedFile, output: BinaryIO) -> str:
    """Downloads a file and returns its digest; keeps it only if that is right.

    Raises:
        OSError: As `_download`.
    """
    continued = output.seek(0, os.SEEK_END) > 0
    _download(url, output)
    output.flush()
    (found,) = _digests(Path(output.name), {file.digest.split(":")[0]})
    if found == file.digest:
        return found
    output.truncate(0)
    # What was there before may have been at fault.
    return _download_checked(url, file, output) if continued else found


def _download(url: str, output: BinaryIO) -> None:
    """Downloads what is missing of a file, in several attempts if need be.

    Raises:
        OSError: The server cannot be reached, refuses, or every attempt broke off
            without bringing anything.
    """
    failures = 0
    while True:
        before = output.seek(0, os.SEEK_END)
        try:
            _download_once(url, output)
            return
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            # An attempt that got further has not failed.
            failures = failures + 1 if output.seek(0, os.SEEK_END) <= before else 0
            if refused or failures >= ATTEMPTS or _unreachable(error):
                raise
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)


def _download_once(url: str, output: BinaryIO) -> None:
    """Appends what is missing to the file, or starts it again.

    Raises:
        OSError: The connection failed or broke off.
    """
    start = output.seek(0, os.SEEK_END)
    headers = {"User-Agent": "keras-alexnet", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(start):
                # All of it was there.
                return
            output.truncate(0)
            raise ConnectionError("the unfinished download was too long") from None
        raise
    with response:
        continued = response.status == http.HTTPStatus.PARTIAL_CONTENT
        span = response.headers.get("Content-Range", "")
        if not continued or not span.startswith(f"bytes {start}-"):
            output.truncate(0)
            if continued:
                raise ConnectionError(f"the server sent another part: {span}")
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if total is not None and total > MOST_BYTES:
            raise ConnectionError(f"the server announces {total:,} bytes")
        with _progress(url, start, total) as advance:
            while chunk := response.read(CHUNK_BYTES):
                if output.tell() + len(chunk) > MOST_BYTES:
                    output.truncate(0)
                    raise ConnectionError(f"more than {MOST_BYTES:,} bytes came")
                output.write(chunk)
                advance(len(chunk))
        output.flush()
    if total is not None and output.tell() < total:
        raise ConnectionError(f"the connection broke off at {output.tell():,} bytes")


@contextlib.contextmanager
def _progress(url: str, start: int, total: int | None) -> Iterator:
    """Draws a bar on the error stream, where that is a terminal."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn())
    with Progress(
        *columns,
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        name = url.rpartition("/")[2]
        task = progress.add_task(name, total=total, completed=start)
        yield lambda count: progress.advance(task, count)


def _unreachable(error: Exception) -> bool:
    """Says whether there is no such server, or no network, to try again with."""
    reason = getattr(error, "reason", None)
    # A connection that was broken off is worth another attempt; a name that has no
    # address, or a port where nobody listens, is not.
    return (
        isinstance(error, urllib.error.URLError)
        and isinstance(reason, OSError)
        and not isinstance(reason, (ConnectionResetError, TimeoutError))
    )


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(error).__name__


# === Digests ===


def _digests(path: Path, algorithms: set[str]) -> list[str]:
    """Returns a file's digests, each with its algorithm, reading it once."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            for one in hashes.values():
                one.update(chunk)
    return [f"{name}:{one.hexdigest()}" for name, one in hashes.items()]


def _check_digest(path: Path, file: PublishedFile) -> None:
    """Raises unless the file is what was published."""
    (found,) = _digests(path, {file.digest.split(":")[0]})
    if found != file.digest:
        raise UserError(
            f"{path} is not the published {file.file_name}: its digest is {found}, not "
            f"{file.digest}. Remove it, and it is downloaded again."
        )
