"""Recipes that ship with lepton-compile: one folder for each family of models."""
