"""The first pictures of the README: a photo that no training saw, beside ours at two rates; and samples.

python -m studies.weights.pictures
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from depthq.data import open_whole_images
from depthq.files import replacing
from depthq.models import DQAE
from depthq.pixels import image_grid, pad_to_multiple, psnr_db, to_picture
from depthq.priors import CodePrior, nll_nats_of_tiles
from depthq.report.prefixes import decode, keep, prefixes_of
from depthq.units import nats_to_bits

IMAGES = Path(__file__).parents[2] / "docs" / "img"
MODEL, PHOTO, COARSE = "photos-small", "chelsea.png", "level 0"
SAMPLES, COLUMNS = 48, 16
_GAP, _TEXT_HEIGHT = 6, 26


@torch.no_grad()
def main() -> None:
    model, prior = DQAE.from_pretrained(MODEL), CodePrior.from_pretrained(MODEL)
    _save(draw_photo(model, prior), "photo.png")
    _save(image_grid(model.decode(prior.sample(SAMPLES)), columns=COLUMNS), "photo-samples.png")


def draw_photo(model: DQAE, prior: CodePrior) -> Image.Image:
    """The original, all codes, and the coarse level alone, each with its rate below."""
    photos = open_whole_images("bundled", "test")
    index = [origin.id for origin in photos.origins(range(len(photos)))].index(PHOTO)
    original = torch.tensor(photos[index])
    _, height, width = original.shape
    codes = model.encode(pad_to_multiple(original[None], model.config.image_multiple))
    under_prior = nats_to_bits(float(nll_nats_of_tiles(prior, codes))) / (height * width)
    panels = [(to_picture(original), f"original, {width} x {height}")]
    for prefix in (prefixes_of(model)[-1], prefixes_of(model)[0]):
        made = decode(model, codes, prefix)[0, :, :height, :width]
        quality = float(psnr_db(made[None].float(), original[None].float()))
        bits = keep(codes, prefix).num_bits() / (height * width)
        rate = f"{prefix.name}: {bits:.2f} bits/pixel"
        if prefix.name != COARSE:
            rate += f" ({under_prior:.2f} under the prior)"
        panels.append((to_picture(made), f"{rate}, {quality:.1f} dB"))
    page = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, height + _TEXT_HEIGHT), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for place, (picture, text) in enumerate(panels):
        left = place * (width + _GAP)
        page.paste(picture, (left, 0))
        draw.text((left, height + 5), text, fill="black", font=font)
    return page


def _save(picture: Image.Image, name: str) -> None:
    with replacing(IMAGES / name) as file:
        picture.save(file, "PNG", optimize=True)
    print(IMAGES / name)


if __name__ == "__main__":
    main()
