"""Training and tuning: from a configuration and tiles to checkpoints in a folder.

Takes a configuration (:func:`deepbedmap.model.training.configuration.load`) and training
and validation tiles (:func:`load_tiles`); writes the state, the best network and one line of
metrics per epoch. A stopped training resumes. Begin with :func:`fit`; :func:`tune` searches
for better settings.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="model")
