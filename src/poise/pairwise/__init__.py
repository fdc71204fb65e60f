"""Sets of (object, prior) pairs: the one room that chooses between dense and sparse storage."""
