"""Pictures and pages: one self-contained HTML page per run."""
