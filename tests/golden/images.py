"""Makes tests/golden/images: small PNG and JPEG files, what Pillow reads in them, and what it makes of them.

    python tests/golden/images.py

Needs pillow and numpy (and for pixel_values transformers with torch and torchvision, whose default processor is compared
with the PIL one); run by hand, its results are committed.
"""
import hashlib
import json
import os

import numpy as np
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images")
RANDOM = np.random.RandomState(5)
SETTINGS = {"size": {"height": 8, "width": 8}, "resample": 3, "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225], "rescale_factor": 1 / 255}


def picture(height, width, channels):
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(x / 3 + k) + 80 * np.cos(y / (2 + k)) for k in range(channels)]
    return np.clip(np.stack(waves, -1) + RANDOM.randn(height, width, channels) * 20, 0, 255).astype(np.uint8)


def record(image):
    content = image.tobytes()
    return {"height": image.height, "width": image.width, "sha256": hashlib.sha256(content).hexdigest(),
            "first": list(content[:12])}


def main():
    os.makedirs(OUT, exist_ok=True)
    save = lambda image, name, **more: image.save(os.path.join(OUT, name), **more)  # noqa: E731
    base = picture(23, 31, 3)
    save(Image.fromarray(base), "rgb.png")
    save(Image.fromarray(base), "photo.jpg", quality=92)
    save(Image.fromarray(picture(9, 7, 3)).convert("L"), "grey.png")
    save(Image.fromarray(picture(12, 10, 4), "RGBA"), "alpha.png")
    save(Image.fromarray(picture(16, 16, 3)).quantize(12), "palette.png")
    save(Image.fromarray(picture(8, 8, 3)).convert("L"), "grey.jpg", quality=90)
    save(Image.fromarray(picture(8, 8, 4), "CMYK"), "cmyk.jpg")
    expected = {"read": {}, "resize": [], "settings": SETTINGS}
    for name in ("rgb.png", "photo.jpg", "grey.png", "alpha.png", "palette.png", "grey.jpg"):
        expected["read"][name] = record(Image.open(os.path.join(OUT, name)).convert("RGB"))
    image = Image.open(os.path.join(OUT, "rgb.png")).convert("RGB")
    expected["grey"] = record(image.convert("L"))
    for number in range(6):
        for height, width in ((8, 8), (23, 40), (50, 31), (11, 64)):
            expected["resize"].append({"filter": number, **record(image.resize((width, height), number))})
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    values = ViTImageProcessorPil(**SETTINGS)(image, return_tensors="np")["pixel_values"][0]
    expected["pixel_values"] = [round(float(x), 7) for x in values.reshape(-1)]
    try:
        from transformers import ViTImageProcessor
        other = np.asarray(ViTImageProcessor(**SETTINGS)(image, return_tensors="np")["pixel_values"][0])
        print("torchvision differs from PIL by", np.abs(other - values).max() * min(SETTINGS["image_std"]) * 255, "levels")
    except ImportError as error:
        print("no torchvision:", error)
    with open(os.path.join(OUT, "expected.json"), "w", encoding="utf-8") as out:
        json.dump(expected, out)


if __name__ == "__main__":
    main()
