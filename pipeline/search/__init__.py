"""The search for a model's parameters: its space, its trials, and what a fold that no trial saw says of the winner."""
