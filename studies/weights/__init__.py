"""The weights that come with the package: what each was trained on and how, one command each."""
