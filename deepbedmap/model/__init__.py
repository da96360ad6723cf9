"""The super-resolution network: its layers and losses, checkpoints, training and prediction.

Training takes tiles (:mod:`deepbedmap.tiles`) and a configuration and gives checkpoints;
prediction takes checkpoints and rasters and gives a bed at 250 m. At import these modules
need only PyTorch and NumPy. Begin with :func:`deepbedmap.model.training.fit`,
:func:`deepbedmap.model.checkpoints.load` and :func:`deepbedmap.model.prediction.predict`.
"""
