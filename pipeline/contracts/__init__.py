"""The words everyone shares: survey constants, schemas, configuration, errors."""
