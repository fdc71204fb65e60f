"""Networks: backbones, necks and heads."""
