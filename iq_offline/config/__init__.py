"""Frozen, typed configurations: what a training run is made of, to and from TOML, with a hash that names it.

One module and one class a method and kind of actions; `train.py` has the run's own settings.
"""
