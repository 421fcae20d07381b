"""One file for each peer: the same work in its own idiom, with the settings that served it best here."""
