"""The mathematics that training and serving share.

Ground floor (NumPy and Pillow only): `config`, `schedule`, `samplers`, `receptive_field`,
`prototype_boxes`, `transforms`, `statistics`, `bundle`, `hub`. Upper floor (imports torch): `encoder`,
`whole_image`, `unet`, `patronus`, `prior`, `official`.
"""
