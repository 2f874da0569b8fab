"""Strong-lens injection and training sets for the DESI Legacy Surveys DR10."""
