"""Our server beside LitServe, BentoML, Ray Serve and mosec, under the same load over the same network."""
