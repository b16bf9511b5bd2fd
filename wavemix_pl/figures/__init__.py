"""The paper's figures from our models: what is computed, as tensors, and how it is drawn, as matplotlib's Figures."""

from wavemix_pl.figures.energy import compaction, curves, draw_energy, learned_maps
from wavemix_pl.figures.learning_curves import draw_learning_curves, read_curves
from wavemix_pl.figures.network import networks
from wavemix_pl.figures.occlusion import draw_occlusion, find_examples, occlusion_map
from wavemix_pl.figures.receptive_field import (
    draw_receptive_fields,
    gradient_fields,
    impulse_responses,
    random_gradient_fields,
    reach,
    unit_copy,
)
from wavemix_pl.figures.segmentation import draw_segmentation, segment_images
from wavemix_pl.figures.subbands import draw_subbands, photograph, subbands

__all__ = [
    "compaction",
    "curves",
    "draw_energy",
    "draw_learning_curves",
    "draw_occlusion",
    "draw_receptive_fields",
    "draw_segmentation",
    "draw_subbands",
    "find_examples",
    "gradient_fields",
    "impulse_responses",
    "learned_maps",
    "networks",
    "occlusion_map",
    "photograph",
    "random_gradient_fields",
    "reach",
    "read_curves",
    "segment_images",
    "subbands",
    "unit_copy",
]
