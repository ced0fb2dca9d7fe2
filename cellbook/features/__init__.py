"""Classical features of single cells, and the plain encoders that every learned one must beat."""

from cellbook.features.encoders import cell_count, classical, pixel_pca, random_network
from cellbook.features.transferred import imagenet
