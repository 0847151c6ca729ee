"""Models loaded without their head."""

from camcli.models.load import load as load_model


def load(name, **options):
    return load_model(name, weights=options.pop("weights", "random"), head="none", **options)
