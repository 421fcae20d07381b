"""The mathematics that training and serving share.

Ground floor (NumPy and Pillow only): `config`, `schedule`, `samplers`, `receptive_field`,
`transforms`, `statistics`, `bundle`. Upper floor (imports torch): `encoder`, `unet`, `patronus`,
`prior`, `official`.
"""
