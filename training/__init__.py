"""Offline: train, evaluate and export a Patronus model as a bundle."""
