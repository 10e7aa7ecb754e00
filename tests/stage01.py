"""The script of stage 01 as a module, whose name begins with a digit."""

import importlib

prepare = importlib.import_module("scripts.01_prepare_data").prepare
