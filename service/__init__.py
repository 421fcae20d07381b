"""Online: serve a bundle over HTTP. See `service.app` for how the parts fit together."""
