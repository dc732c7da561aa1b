"""How each of the 28 locations looks, in label order."""

from pipeline.simulate import boundary, cytoplasm, cytoskeleton, nucleus
from pipeline.simulate.scene import Layer

LOCATIONS: tuple[Layer, ...] = (
    nucleus.nucleoplasm,
    nucleus.nuclear_membrane,
    nucleus.nucleoli,
    nucleus.fibrillar_center,
    nucleus.speckles,
    nucleus.nuclear_bodies,
    cytoplasm.endoplasmic_reticulum,
    cytoplasm.golgi,
    cytoplasm.peroxisomes,
    cytoplasm.endosomes,
    cytoplasm.lysosomes,
    cytoskeleton.intermediate_filaments,
    cytoskeleton.actin_filaments,
    cytoskeleton.focal_adhesions,
    cytoskeleton.microtubules,
    cytoskeleton.microtubule_ends,
    cytoskeleton.cytokinetic_bridge,
    cytoskeleton.mitotic_spindle,
    cytoskeleton.organizing_center,
    cytoskeleton.centrosome,
    cytoplasm.lipid_droplets,
    boundary.plasma_membrane,
    boundary.cell_junctions,
    cytoplasm.mitochondria,
    cytoplasm.aggresome,
    cytoplasm.cytosol,
    cytoplasm.cytoplasmic_bodies,
    cytoplasm.rods_and_rings,
)
