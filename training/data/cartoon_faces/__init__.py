"""Cartoon faces: a data set that is drawn, so that of every picture everything is known.

1. `attributes` is the table of what a face can have; its labels are the questions that a probe is asked.
2. `faces` samples faces from a seed, with the `couplings` asked for, and changes one attribute of them.
3. `drawing` paints the `strokes` of a face on its `sheet`, with the geometry of `shapes`, and says which
   pixels show an attribute.
4. `source` makes a data set of them: `cartoon-faces`, or `cartoon-faces:fair_hair=smile@0.8`.
"""

from training.data.cartoon_faces.attributes import (
    ATTRIBUTES,
    LABELS,
    Attribute,
    Value,
    attribute_named,
    value_named,
)
from training.data.cartoon_faces.couplings import Coupling, parse_couplings
from training.data.cartoon_faces.drawing import changed_pixels, masks, render
from training.data.cartoon_faces.faces import VARIATIONS, Faces, sample_faces
from training.data.cartoon_faces.source import (
    CARTOON_FACES,
    cartoon_faces_source,
    is_cartoon_faces,
    split_faces,
)

__all__ = [
    "ATTRIBUTES",
    "CARTOON_FACES",
    "LABELS",
    "VARIATIONS",
    "Attribute",
    "Coupling",
    "Faces",
    "Value",
    "attribute_named",
    "cartoon_faces_source",
    "changed_pixels",
    "is_cartoon_faces",
    "masks",
    "parse_couplings",
    "render",
    "sample_faces",
    "split_faces",
    "value_named",
]
