"""The README's pictures: made smaller and saved in docs/pictures."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.images import REPOSITORY

FOLDER = REPOSITORY / "docs/pictures"
NAMES = ("my-page.png", "admin.png")
MOST_BYTES = 150_000


def publish(folder: Path) -> int:
    """Replace the pictures by those in `folder`, all or none. Returns the exit status."""
    pictures = [folder / name for name in NAMES]
    subprocess.run(["pngquant", "--force", "--strip", "--speed", "1", "--ext", ".png", *pictures], check=True)
    large = [picture.name for picture in pictures if picture.stat().st_size > MOST_BYTES]
    if large:
        print(f"lab: larger than {MOST_BYTES} bytes: {', '.join(large)}", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    for picture in pictures:
        shutil.copyfile(picture, FOLDER / picture.name)
        print(f"docs/pictures/{picture.name}: {picture.stat().st_size // 1000} kB")
    return 0
