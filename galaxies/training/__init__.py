"""Learners, steps, the trainer, and what watches over them. It never imports `validation`."""
