def test_a_model_without_a_prior_is_named_as_that():
    with pytest.raises(ValueError, match=r"must hold a prior; it holds a model without one; make one: depthq prior"):
        CodePrior.from_pretrained("cifar10-lossless")
