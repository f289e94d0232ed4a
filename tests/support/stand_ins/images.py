"""Write handwritten digits as FOLDER/{train,test}/CLASS/*.png: ``python images.py FOLDER SIZE``."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

folder, size = Path(sys.argv[1]), int(sys.argv[2])
digits = load_digits()
for number, (grey, label) in enumerate(zip(digits.images[:300], digits.target[:300], strict=True)):
    place = folder / ("train" if number < 200 else "test") / str(label)
    place.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray((grey * 255 / 16).round().astype("uint8")).resize((size, size))
    image.convert("RGB").save(place / f"{number}.png")
