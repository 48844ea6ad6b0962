"""Units of information, against figures that can be checked by hand."""

import math

import pytest

from depthq.units import bits_per_dim, bits_per_pixel, nats_to_bits


def test_one_bit_is_the_logarithm_of_two():
    assert nats_to_bits(0.6931471805599453) == pytest.approx(1.0)
    assert nats_to_bits(math.log(256)) == pytest.approx(8.0)


def test_papers_figure_in_bits():
    assert nats_to_bits(2.52) == pytest.approx(3.64, abs=0.005)  # Table 4's nats as Table 1 should have them


def test_uniform_image_costs_eight_bits_per_dim_and_24_per_colour_pixel():
    bits = 3 * 4 * 5 * 8
    assert bits_per_dim(bits, (3, 4, 5)) == 8.0
    assert bits_per_pixel(bits, (3, 4, 5)) == 24.0


def test_dim_and_pixel_are_the_same_for_gray():
    assert bits_per_dim(12.3, (1, 4, 5)) == bits_per_pixel(12.3, (1, 4, 5))
