"""Hours in small: steady load on the real model, with clients that leave and a cache that comes and goes."""
