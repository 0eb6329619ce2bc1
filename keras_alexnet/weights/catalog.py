"""The published files of weights that are known, and how to get them.

Nothing is downloaded unless it is asked for by name. A download that breaks off is
continued; a file counts only when its digest is the published one.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import rich.progress
from filelock import FileLock, Timeout
from rich.console import Console

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.files import digest_of

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
        urls: Where it is, the publisher's own place first.
        digest: The algorithm and the digest, `"sha256:..."` or `"sha1:..."`.
        source: Who published it, and under which terms, for people.
        architecture: The architecture that it holds weights for; None if none.
        top1_error: Error on the validation images of ILSVRC2012 as published, one
            centre crop, between 0 and 1.
        top5_error: The same, for the five likeliest classes.
    """

    name: str
    urls: tuple[str, ...]
    digest: str
    source: str
    architecture: str | None = None
    top1_error: float | None = None
    top5_error: float | None = None

    @property
    def file_name(self) -> str:
        """What its publisher calls it."""
        return self.urls[0].rpartition("/")[2]

    def digest_of(self, path: Path) -> str:
        """Returns a file's digest, by the algorithm of the published one."""
        return digest_of(path, self.digest.partition(":")[0])


def _caffe(name: str, model: str, digest: str, *errors: float) -> PublishedFile:
    """Weights of Caffe; the digests are those in its models' readme.md."""
    url = f"http://dl.caffe.berkeleyvision.org/{model}.caffemodel"
    source = f"BVLC Caffe, models/{model}, unrestricted use"
    architecture = name.removeprefix("caffe-").replace("alexnet", "bvlc_alexnet")
    return PublishedFile(name, (url,), digest, source, architecture, *errors)


def _onnx(network: str, opset: int, digest: str, *errors: float) -> PublishedFile:
    """A file of the ONNX model zoo, which has moved from GitHub to Hugging Face.

    Its graphs take 224 pixels, the errors are theirs; the weights were trained with
    227, and that is what the architectures here take. Digests are from the zoo's
    ONNX_HUB_MANIFEST.json.
    """
    model = {"alexnet": "bvlcalexnet"}.get(network, network)
    path = f"validated/vision/classification/{network}/model/{model}-{opset}.onnx"
    places = (
        "https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/",
        "https://github.com/onnx/models/raw/main/",
    )
    return PublishedFile(
        f"onnx-{network}-{opset}",
        tuple(place + path for place in places),
        digest,
        "ONNX model zoo, converted from Caffe's weights, BSD-3-Clause",
        network.replace("alexnet", "bvlc_alexnet"),
        *errors,
    )


_FILES = (
    # The first eight digits of the SHA-256 are in the name, by torchvision's custom.
    PublishedFile(
        name="torchvision-alexnet",
        urls=("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
        digest="sha256:"
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        source="torchvision, AlexNet_Weights.IMAGENET1K_V1, BSD-3-Clause",
        architecture="alexnet_owt",
        top1_error=0.43478,
        top5_error=0.20934,
    ),
    _caffe(
        "caffe-alexnet",
        "bvlc_alexnet",
        "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377",
        *(0.429, 0.198),
    ),
    _caffe(
        "caffe-caffenet",
        "bvlc_reference_caffenet",
        "sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        *(0.426, 0.196),
    ),
    # For `keras_alexnet.LPIPS`; the file of the package lpips 0.1.4 on PyPI, too.
    PublishedFile(
        name="lpips-alex",
        urls=(
            "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"
            "lpips/weights/v0.1/alex.pth",
        ),
        digest="sha256:"
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        source="R. Zhang et al., PerceptualSimilarity, BSD-2-Clause",
    ),
    # Caffe's own copy is inside caffe_ilsvrc12.tar.gz only.
    PublishedFile(
        name="caffe-imagenet-mean",
        urls=(
            "https://github.com/Robert0812/deepsaldet/raw/master/caffe-sal/data/"
            "ilsvrc12/imagenet_mean.binaryproto",
        ),
        digest="sha1:63e4652e656abc1e87b7a8339a7e02fca63a2c0c",
        source="BVLC Caffe, data/ilsvrc12",
    ),
    # The weights of caffe-alexnet, whose error nobody has measured in this form.
    PublishedFile(
        name="numpy-alexnet",
        urls=("https://www.cs.toronto.edu/~guerzhoy/tf_alexnet/bvlc_alexnet.npy",),
        digest="sha256:"
        "1294ef51496c52f2e4879ee3b5e1da22c35d61f3240937491b4469403d5428cc",
        source="M. Guerzhoy, University of Toronto, converted from Caffe's weights",
        architecture="bvlc_alexnet",
    ),
    _onnx(
        *("alexnet", 12),
        "sha256:6b0da9510f27f234ee96a85dc3809dd210150fdefad87f6850f9788513216945",
        *(0.4520, 0.2177),
    ),
    _onnx(
        *("alexnet", 9),
        "sha256:ef3c82dad5c512f969dbf701fe35c0b3feb1585687d541f765eb68730c0a8af7",
    ),
    _onnx(
        *("caffenet", 12),
        "sha256:ea563e5c47d1f58e1717cf1a2d8bf288b8adc07af0ad228b622096cd243aeecb",
    ),
    _onnx(
        *("caffenet", 9),
        "sha256:802138332cf3e423c82a9a80c76e4f9227dd4effb3aba55413601fa4345cfd36",
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
        names = {file.architecture: file.name for file in reversed(CATALOG.values())}
        weights = names.get(architecture or next(iter(CATALOG.values())).architecture)
        if weights is None:
            known = ", ".join(sorted(filter(None, names)))
            raise UserError(
                f"No weights of {architecture} for ImageNet have been published; there "
                f"are some of {known}."
            )
    try:
        get_published(str(weights))
    except UserError as error:
        raise UserError(f"No such weights file: {weights}. {error}") from None
    return fetch_weights(str(weights))


def identify(path: str | Path) -> PublishedFile | None:
    """Returns the published file that a file is a copy of, whatever it is called."""
    algorithms = {file.digest.partition(":")[0]: file for file in CATALOG.values()}
    found = {file.digest_of(path) for file in algorithms.values()}
    return next((file for file in CATALOG.values() if file.digest in found), None)


def fetch_weights(name: str, cache_dir: str | Path | None = None) -> Path:
    """Downloads a published file, unless it is there already.

    What has arrived is kept when the connection breaks, and the next attempt goes on
    from there. The file appears under its name only when it is complete and its digest
    is right, so a file brought by hand to that place is taken as well.

    Args:
        name: Its name in the catalog (see `list_weights()`), or its file name.
        cache_dir: Where to keep it. Defaults to what the environment variable
            `KERAS_ALEXNET_CACHE` says, or `~/.cache/keras_alexnet/weights`.

    Returns:
        The file's path.

    Raises:
        ValueError: No such name, or a file with another content than published.
        OSError: It could not be downloaded, or not written. The message says where to
            put a copy.
    """
    file = get_published(name)
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE
    target = Path(chosen).expanduser() / file.file_name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock", timeout=0)
        try:
            with lock:
                if not target.is_file():
                    _download_from_any(file, target)
                Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            raise OSError(f"Another process is downloading {target} now.") from None
    found = file.digest_of(target)
    if found != file.digest:
        raise UserError(
            f"{target} is not the published {file.file_name}: its digest is {found}, "
            f"not {file.digest}. Remove it, and it is downloaded again."
        )
    return target


# === Download ===


def _download_from_any(file: PublishedFile, target: Path) -> None:
    """Downloads a file from the first place that has it.

    Raises:
        UserError: A server has another file.
        OSError: None could be reached.
    """
    part = target.with_name(target.name + ".part")
    problems, kind = [], OSError
    for url in file.urls:
        try:
            _download(url, part, file)
        except (OSError, http.client.HTTPException, UserError) as error:
            kind = UserError if isinstance(error, UserError) else kind
            problems.append(f"{url}: {error}")
            continue
        os.replace(part, target)
        return
    raise kind(
        f"{file.file_name} could not be downloaded ({'; '.join(problems)}). Try again, "
        "which continues where it stopped, or get it by other means and put it at "
        f"{target}"
    )


def _download(url: str, part: Path, file: PublishedFile) -> None:
    """Downloads what is missing of a file, in several attempts if need be.

    A connection that breaks off and a server in trouble are tried again; a server that
    cannot be reached, or refuses, is not.

    Raises:
        UserError: The server has another file.
        OSError: No attempt brought anything.
    """
    failures, continued = 0, part.exists()
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(url, part)
        except (OSError, http.client.HTTPException) as error:
            is_over = isinstance(error, urllib.error.URLError)
            is_over = is_over and getattr(error, "code", 400) < 500
            # An attempt that got further has not failed.
            further = part.exists() and part.stat().st_size > before
            failures = 0 if further else failures + 1
            if is_over or failures >= ATTEMPTS:
                raise
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
            continue
        found = file.digest_of(part)
        if found == file.digest:
            return
        part.unlink()
        if not continued:
            raise UserError(
                f"not the published file, its digest is {found} instead of "
                f"{file.digest}"
            )
        # What was there before may have been at fault.
        continued = False


def _append(url: str, part: Path) -> None:
    """Appends what is missing to a file, or starts it again.

    Raises:
        OSError: The connection failed or broke off.
    """
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "keras-alexnet", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # Nothing is missing: the digest says whether it is this file.
        return
    partial = response.status == http.HTTPStatus.PARTIAL_CONTENT
    console = Console(stderr=True)
    with response, open(part, "ab" if partial else "wb") as output:
        missing = int(response.headers.get("Content-Length", 0))
        total = output.tell() + missing
        bar = rich.progress.wrap_file(
            *(response, missing),
            description=part.stem,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        with bar as content:
            while chunk := content.read(CHUNK_BYTES):
                if max(total, output.tell() + len(chunk)) > MOST_BYTES:
                    output.truncate(0)
                    raise ConnectionError(
                        f"the file has more than {MOST_BYTES:,} bytes"
                    )
                output.write(chunk)
        os.fsync(output.fileno())
        if output.tell() < total:
            raise ConnectionError(
                f"the connection broke off at {output.tell():,} bytes"
            )
