"""Figures for people: each with its unit, the headline first."""

from depthq.measure import Evaluation


def show_figures(figures: Evaluation) -> None:
    """Print the figures of an evaluation; those that do not exist for its likelihood are left out."""
    rows = [
        (
            "total",
            figures.total_bits_per_dim,
            "bits/dim",
            "image + codes: compare this one with other models",
        ),
        ("codes", figures.code_bits_per_dim, "bits/dim", "uniform prior"),
        ("", figures.code_bits_per_pixel, "bits/pixel", "the same, per pixel"),
        ("image given codes", figures.nll_bits_per_dim, "bits/dim", "what the paper reports, in bits"),
        ("", figures.nll_nats_per_dim, "nats/dim", "the same, in nats"),
        ("L2, normalised space", figures.mse_normalized, "", "the paper's L2"),
        ("PSNR", figures.psnr_db, "dB", f"mean colour alone: {figures.psnr_db_mean_colour:.2f} dB"),
        ("SSIM", figures.ssim, "", ""),
    ]
    print(f"{figures.images} images")
    for name, value, unit, remark in rows:
        if value is not None:
            print(f"  {name:22} {value:9.4f} {unit:10} {remark}".rstrip())
    for index, level in enumerate(figures.levels):
        for codebook, (perplexity, usage, entropy_bits) in enumerate(
            zip(level.perplexity, level.usage, level.entropy_bits, strict=True)
        ):
            print(
                f"  level {index} codebook {codebook:<3} perplexity {perplexity:7.1f}   usage {usage:6.1%}   "
                f"entropy {entropy_bits:5.2f} bits"
            )
