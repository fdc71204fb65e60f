"""The smallest model that goes through every step: for tests of what surrounds it."""

TINY_MODEL = "--model.options backbone test_byobnet channels 16 depth 1".split()
TINY_MODEL += "--model.backbone-weights none --image-size 96".split()
