"""Gates: what a training cube must satisfy before anything is trained on it."""
