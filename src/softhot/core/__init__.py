"""Arithmetic on any array namespace: rules, targets, losses and what they mean."""
