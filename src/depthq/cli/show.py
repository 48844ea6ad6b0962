"""Metrics for people: each with its unit, the headline first."""

from depthq.measure import Measurement


def show_measurement(measured: Measurement) -> None:
    """Print the metrics of a measurement; those that do not exist for its likelihood are left out."""
    rows = [
        (
            "total",
            measured.total_bits_per_dim,
            "bits/dim",
            "image + codes: compare this one with other models",
        ),
        ("codes", measured.code_bits_per_dim, "bits/dim", "uniform prior"),
        ("", measured.code_bits_per_pixel, "bits/pixel", "the same, per pixel"),
        ("  under the prior", measured.prior_bits_per_dim, "bits/dim", "as depthq prior learned it"),
        ("  total with prior", measured.total_bits_per_dim_with_prior, "bits/dim", ""),
        ("image given codes", measured.nll_bits_per_dim, "bits/dim", "what the paper reports, in bits"),
        ("", measured.nll_nats_per_dim, "nats/dim", "the same, in nats"),
        ("  and its neighbours", measured.causal_nll_bits_per_dim, "bits/dim", "under the causal head"),
        ("L2, normalised space", measured.mse_normalized, "", "the paper's L2"),
        ("PSNR", measured.psnr_db, "dB", f"mean colour alone: {measured.psnr_db_mean_colour:.2f} dB"),
        ("SSIM", measured.ssim, "", ""),
    ]
    print(f"{measured.images} images")
    for name, value, unit, remark in rows:
        if value is not None:
            print(f"  {name:22} {value:9.4f} {unit:10} {remark}".rstrip())
    for index, level in enumerate(measured.levels):
        for codebook, (perplexity, usage, entropy_bits) in enumerate(
            zip(level.perplexity, level.usage, level.entropy_bits, strict=True)
        ):
            print(
                f"  level {index} codebook {codebook:<3} perplexity {perplexity:7.1f}   usage {usage:6.1%}   "
                f"entropy {entropy_bits:5.2f} bits"
            )
